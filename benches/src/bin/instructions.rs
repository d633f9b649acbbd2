//! How many instructions and allocations the hot parts take, counted under Valgrind: a change of a few percent shows on a machine that
//! is never quiet.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin instructions
//! cargo run --release -p pillarbox-benches --bin instructions -- --part relay-unkeyed,memory-drain
//! ```
//!
//! Each part runs twice in a process of its own under `valgrind --tool=callgrind` (part of Debian's package `valgrind`), once with
//! twice as many operations: the difference is what the operations take, without the start of the program. The messages of the relay's
//! parts are made in both, all of them, so that the relay alone is what differs. The same under `valgrind --tool=dhat` counts
//! allocations. This is less than a framework for it would do, and needs nothing that is not installed.

use clap::{Parser, ValueEnum};
use pillarbox_benches::{BoxError, Keys, Nowhere, Still, drain_memory};
use pillarbox_core::{
    AnyStorage, AnyTransport, Command, Message, Nonce, Record, Storage, Timestamp, Token, Transport, Verdict,
    step,
};
use pillarbox_memory::MemoryStorage;
use pillarbox_redis::layout;
use pillarbox_testkit::throughput::{BATCH, Supply};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::Command as Process;
use std::time::Duration;

/// Counts the instructions and allocations of each operation.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    part: Vec<Part>,
    /// How many operations are counted.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(500..=1_000_000))]
    operations: u32,
    /// For how many of them messages are made.
    #[arg(long, hide = true, default_value_t = 0)]
    prepared: u32,
    /// Prints a JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
    /// Does the operations, uncounted: what this program starts under Valgrind.
    #[arg(long, hide = true)]
    here: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A claim and a settle of the specification.
    State,
    /// A record of Redis, written.
    RedisEncode,
    /// A record of Redis, read.
    RedisDecode,
    /// A document of MongoDB, written.
    MongodbEncode,
    /// A message is made.
    Message,
    /// A message through the whole relay, between a store and a broker that do nothing.
    RelayUnkeyed,
    /// The same in runs of one message.
    RelayRunsOf1,
    /// The same with 100 keys.
    RelayKeys100,
    /// The same with a key for each message.
    RelayKeyEach,
    /// The same behind `AnyStorage` and `AnyTransport`.
    RelayErased,
    /// A message through the whole relay out of the storage in memory.
    MemoryDrain,
}

fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    if arguments.here {
        let run = |part: &Part| part.run(arguments.operations, arguments.prepared);
        return arguments.part.iter().try_for_each(run);
    }
    let mut out = io::stdout();
    if !arguments.json {
        writeln!(out, "part             instructions an operation  allocations an operation")?;
    }
    for part in arguments.part {
        let instructions = each(Count::Instructions, part, arguments.operations)?;
        let allocations = each(Count::Allocations, part, arguments.operations)?;
        let name = part.name();
        if arguments.json {
            let row =
                serde_json::json!({ "part": name, "instructions": instructions, "allocations": allocations });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{name:<16} {instructions:>25.0} {allocations:>25.2}")?;
        }
    }
    Ok(())
}

/// What Valgrind counts, with the tool that does and the words before and after the number in what it says at the end.
#[derive(Clone, Copy)]
enum Count {
    Instructions,
    Allocations,
}

impl Count {
    fn tool(self) -> [&'static str; 2] {
        match self {
            Self::Instructions => ["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            Self::Allocations => ["--tool=dhat", "--dhat-out-file=/dev/null"],
        }
    }

    fn read(self, told: &str) -> Option<f64> {
        let number = match self {
            Self::Instructions => told.split_once("Collected : ")?.1.lines().next()?,
            Self::Allocations => {
                let total = told.split_once("Total:")?.1.lines().next()?;
                total.split_once(" bytes in ")?.1.strip_suffix(" blocks")?
            }
        };
        number.trim().replace(',', "").parse().ok()
    }
}

/// What one operation takes.
fn each(count: Count, part: Part, operations: u32) -> Result<f64, BoxError> {
    let once = counted(count, part, operations, operations * 2)?;
    let twice = counted(count, part, operations * 2, operations * 2)?;
    Ok((twice - once).max(0.0) / f64::from(operations))
}

/// What a process takes that does so many operations, out of so many that it prepares.
fn counted(count: Count, part: Part, operations: u32, prepared: u32) -> Result<f64, BoxError> {
    let counting = Process::new("valgrind")
        .args(count.tool())
        .arg(std::env::current_exe()?)
        .args(["--here", "--part", &part.name()])
        .args(["--operations", &operations.to_string(), "--prepared", &prepared.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start, install its package: {error}"))?;
    let told = String::from_utf8_lossy(&counting.stderr);
    match count.read(&told) {
        Some(number) if counting.status.success() => Ok(number),
        _ => Err(format!("valgrind failed: {told}").into()),
    }
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, operations: u32, prepared: u32) -> Result<(), BoxError> {
        let message = Keys::Of(100).message(7)?;
        let supply = |keys, run_length| Prepared::new(keys, operations, prepared, run_length);
        match self {
            Self::State => (0..operations).for_each(|_| state()),
            Self::RedisEncode => {
                (0..operations).for_each(|_| drop(black_box(layout::encode(black_box(&message), 3))));
            }
            Self::RedisDecode => {
                let record = layout::encode(&message, 3).into();
                (0..operations).for_each(|_| drop(black_box(layout::decode(black_box(&record)))));
            }
            Self::MongodbEncode => (0..operations).for_each(|_| {
                drop(black_box(pillarbox_mongodb::layout::encode(black_box(&message), 3)));
            }),
            Self::Message => (0..operations).for_each(|number| drop(black_box(Keys::None.message(number)))),
            Self::RelayUnkeyed => supply(Keys::None, BATCH)?.relay()?,
            Self::RelayRunsOf1 => supply(Keys::None, 1)?.relay()?,
            Self::RelayKeys100 => supply(Keys::Of(100), BATCH)?.relay()?,
            Self::RelayKeyEach => supply(Keys::Each, BATCH)?.relay()?,
            Self::RelayErased => supply(Keys::None, BATCH)?.relay_erased()?,
            Self::MemoryDrain => {
                let storage = MemoryStorage::new();
                let batch = u32::try_from(BATCH)?;
                for messages in Keys::None.batches(operations, batch)? {
                    storage.enqueue_alone(&messages)?;
                }
                runtime()?.block_on(drain_memory(storage, operations, batch, Still))?;
            }
        }
        Ok(())
    }
}

fn state() {
    let now = Timestamp::from_millis(1);
    let token = Token { unit: 1, fence: 1, nonce: Nonce::from_words(1, 2) };
    let claim = Command::Claim { token, lease: Duration::from_secs(30), run: 1, solo: false };
    let settle = Command::Settle { token, verdict: &Verdict::Published };
    let claimed = step(black_box(&Record::pending(now)), black_box(&claim), now, 3);
    let claimed = claimed.ok().and_then(|transition| transition.record().copied());
    black_box(claimed.map(|claimed| step(&claimed, black_box(&settle), now, 3).is_ok()));
}

/// Messages to relay, and others that were made and are not relayed.
struct Prepared {
    supply: Supply,
    _others: Vec<Message>,
}

impl Prepared {
    fn new(keys: Keys, operations: u32, prepared: u32, run_length: usize) -> Result<Self, BoxError> {
        let messages = (0..prepared.max(operations)).map(|number| keys.message(number));
        let mut messages: Vec<Message> = messages.collect::<Result<_, _>>()?;
        let others = messages.split_off(operations as usize);
        Ok(Self { supply: Supply::new(messages)?.runs_of(u32::try_from(run_length)?), _others: others })
    }

    fn relay(&self) -> Result<(), BoxError> {
        self.relay_between(self.supply.clone(), Nowhere)
    }

    fn relay_erased(&self) -> Result<(), BoxError> {
        self.relay_between(AnyStorage::new(self.supply.clone()), AnyTransport::new(Nowhere))
    }

    fn relay_between(&self, storage: impl Storage, transport: impl Transport) -> Result<(), BoxError> {
        runtime()?.block_on(self.supply.relay_from(storage, transport, Still))
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}
