//! Measures how fast outboxes enqueue and drain and how soon they wake up, beside the floor of their stores.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin throughput
//! cargo run --release -p pillarbox-benches --bin throughput -- --storage redis --work drain --runs 5
//! cargo run --release -p pillarbox-benches --bin throughput -- --transport kafka
//! ```

use clap::{Parser, ValueEnum};
use pillarbox_benches::{
    BoxError, BrokerName, Case, Keys, MemoryBench, MongoBench, RedisBench, Row, SqlBench, Subject, Work,
    measure, plot, progress, publish, table,
};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Measures how fast an outbox enqueues and drains, beside the fastest that its store can do.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which storages; each starts a server of its own. All of them, if no transport is named either.
    #[arg(long, value_enum, value_delimiter = ',')]
    storage: Vec<StorageName>,
    /// Which transports; each starts a server of its own. All of them, if no storage is named either.
    #[arg(long, value_enum, value_delimiter = ',')]
    transport: Vec<BrokerName>,
    /// What is measured in the stores.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Enqueue, Work::Transaction, Work::Drain, Work::Latency])]
    work: Vec<Work>,
    /// How messages are keyed: unkeyed, key-each, keys-10000, keys-100, key-1.
    #[arg(long, value_delimiter = ',', default_values_t = Keys::CASES)]
    keys: Vec<Keys>,
    /// How many relays, or producers, run side by side.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u32).range(1..=64))]
    relays: Vec<u32>,
    /// How many producers write transactions with business data side by side.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// Of 100 sends, how many the broker refuses.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 10], value_parser = clap::value_parser!(u32).range(0..=50))]
    failing: Vec<u32>,
    /// Every kind of key with every number of relays and every share of failures, instead of one of them at a time.
    #[arg(long)]
    cross: bool,
    /// How many messages each measurement has; what a store does in about half a second by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    messages: Option<u32>,
    /// How many messages a claim, or a transaction, has.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// How often each measurement is taken; the one of the median ratio counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Prints a JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
    /// Where a plot for each store is written.
    #[arg(long, default_value = "target/benches")]
    plots: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StorageName {
    Memory,
    Redis,
    Postgres,
    Sqlite,
    Mariadb,
    Mongodb,
}

impl StorageName {
    /// What it does in about half a second; MongoDB in a second, for its change stream is open for the first tenth of one.
    fn messages(self) -> u32 {
        match self {
            Self::Memory => 500_000,
            Self::Redis => 200_000,
            Self::Postgres | Self::Sqlite | Self::Mongodb => 60_000,
            Self::Mariadb => 20_000,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = Arguments::parse();
    if arguments.storage.is_empty() && arguments.transport.is_empty() {
        arguments.storage = StorageName::value_variants().to_vec();
        arguments.transport = BrokerName::value_variants().to_vec();
    }
    let mut with_head = true;
    for storage in &arguments.storage {
        let messages = arguments.messages.unwrap_or(storage.messages());
        let rows = match storage {
            StorageName::Memory => run(&arguments, MemoryBench::new(), messages).await?,
            StorageName::Redis => run(&arguments, RedisBench::start().await?, messages).await?,
            StorageName::Postgres => run(&arguments, SqlBench::postgres().await?, messages).await?,
            StorageName::Sqlite => run(&arguments, SqlBench::sqlite().await?, messages).await?,
            StorageName::Mariadb => run(&arguments, SqlBench::mariadb().await?, messages).await?,
            StorageName::Mongodb => run(&arguments, MongoBench::start().await?, messages).await?,
        };
        finish(&arguments, &rows, with_head)?;
        with_head = false;
    }
    for broker in &arguments.transport {
        let progress = progress(arguments.json, 1, broker.name());
        progress.set_message("building");
        let said = |row: &Row| {
            progress.set_message(format!("after {}", row.case));
            say(&arguments, row)
        };
        let rows = publish(*broker, said).await?;
        progress.finish_and_clear();
        finish(&arguments, &rows, with_head)?;
        with_head = false;
    }
    Ok(())
}

/// Plots and prints the rows of one store or broker at once: the whole table takes minutes.
fn finish(arguments: &Arguments, rows: &[Row], with_head: bool) -> Result<(), BoxError> {
    let plotted = plot(rows, &arguments.plots)?;
    if !arguments.json {
        write!(io::stdout(), "{}", table(rows, with_head))?;
        if let Some(path) = plotted {
            writeln!(io::stdout(), "plotted in {}", path.display())?;
        }
    }
    Ok(())
}

/// The row of the median, said at once where rows are JSON.
fn median(arguments: &Arguments, mut taken: Vec<Row>) -> Result<Row, BoxError> {
    taken.sort_by(|left, right| key(left).total_cmp(&key(right)));
    let row = taken.swap_remove(taken.len() / 2);
    say(arguments, &row)?;
    Ok(row)
}

fn say(arguments: &Arguments, row: &Row) -> Result<(), BoxError> {
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(row)?)?;
    }
    Ok(())
}

async fn run<S: Subject>(arguments: &Arguments, mut subject: S, messages: u32) -> Result<Vec<Row>, BoxError> {
    let cases = cases(arguments, messages);
    let progress = progress(arguments.json, cases.len() as u64, subject.name());
    let mut rows = Vec::new();
    for case in cases {
        let (work, keys) = (case.work.name(), case.keys.name());
        progress.set_message(format!("{work}, {keys}, {} side by side", case.relays));
        let mut taken = Vec::new();
        for _ in 0..arguments.runs {
            taken.push(measure(&mut subject, case).await?);
        }
        rows.push(median(arguments, taken)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// What the median is taken of.
fn key(row: &Row) -> f64 {
    row.p50_ms.unwrap_or(row.ratio)
}

fn cases(arguments: &Arguments, messages: u32) -> Vec<Case> {
    let Arguments { batch, producers, .. } = *arguments;
    let mut cases = Vec::new();
    let keys = arguments.keys.first().copied().unwrap_or(Keys::None);
    let fewest = arguments.relays.first().copied().unwrap_or(1);
    for work in arguments.work.iter().copied() {
        let plain = Case { work, keys, failing_percent: 0, relays: fewest, messages, batch };
        match work {
            Work::Latency => cases.push(plain),
            Work::Transaction => cases.push(Case { relays: producers, messages: messages / 4, ..plain }),
            Work::Enqueue => cases.extend(arguments.keys.iter().map(|keys| Case { keys: *keys, ..plain })),
            Work::Publish => {}
            Work::Drain => {
                for case in drains(arguments) {
                    cases.push(Case { work, messages, ..case });
                }
            }
        }
    }
    cases
}

/// One of keys, relays and failures at a time, beside the first of the others; or all with all.
fn drains(arguments: &Arguments) -> impl Iterator<Item = Case> + use<'_> {
    let Arguments { batch, cross, .. } = *arguments;
    arguments.keys.iter().enumerate().flat_map(move |(key, keys)| {
        arguments.relays.iter().enumerate().flat_map(move |(relay, relays)| {
            arguments.failing.iter().enumerate().filter_map(move |(share, failing)| {
                let others = [key, relay, share].into_iter().filter(|place| *place > 0).count();
                (cross || others < 2).then_some(Case {
                    work: Work::Drain,
                    keys: *keys,
                    failing_percent: *failing,
                    relays: *relays,
                    messages: 0,
                    batch,
                })
            })
        })
    })
}
