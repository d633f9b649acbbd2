//! Measures how fast an outbox enqueues and drains, beside its store's floor.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin throughput -- --storage redis
//! ```

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use pillarbox_benches::{BoxError, Keys, MongoBench, MongoFloor, RedisBench, Row, SqlBench, Work};
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer, ServerFolder};
use std::io::{self, Write as _};
use std::time::Duration;

/// Measures how fast an outbox enqueues and drains, beside the fastest that its store can do.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which storage; it starts a server of its own.
    #[arg(long, value_enum, default_value = "redis")]
    storage: StorageName,
    /// How many messages each measurement has.
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
    /// How many messages a claim, or a transaction, has.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// How many relays run side by side, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    relays: Vec<u32>,
    /// How often each measurement is taken; the one of the median ratio counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Prints a JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StorageName {
    Redis,
    Sqlite,
    Postgres,
    Mariadb,
    /// Beside one consumer that reads batches and deletes them.
    Mongodb,
    /// Beside one `findOneAndUpdate` for each message.
    MongodbOneByOne,
}

/// One of them, started.
enum Bench {
    Redis(RedisBench),
    Sqlite(SqlBench<sqlx::Sqlite, ServerFolder>),
    Postgres(SqlBench<sqlx::Postgres, PostgresServer>),
    Mariadb(SqlBench<sqlx::MySql, MariaDbServer>),
    Mongodb(MongoBench),
}

impl Bench {
    async fn start(storage: StorageName, messages: u32, batch: u32) -> Result<Self, BoxError> {
        Ok(match storage {
            StorageName::Redis => Self::Redis(RedisBench::start(messages, batch).await?),
            StorageName::Sqlite => Self::Sqlite(SqlBench::sqlite(messages, batch).await?),
            StorageName::Postgres => Self::Postgres(SqlBench::postgres(messages, batch).await?),
            StorageName::Mariadb => Self::Mariadb(SqlBench::mariadb(messages, batch).await?),
            StorageName::Mongodb => {
                Self::Mongodb(MongoBench::start(messages, batch, MongoFloor::Batches).await?)
            }
            StorageName::MongodbOneByOne => {
                Self::Mongodb(MongoBench::start(messages, batch, MongoFloor::OneByOne).await?)
            }
        })
    }

    async fn measure(&mut self, work: Work, keys: Keys, relays: u32) -> Result<Row, BoxError> {
        match self {
            Self::Redis(bench) => bench.measure(work, keys, relays).await,
            Self::Sqlite(bench) => bench.measure(work, keys, relays).await,
            Self::Postgres(bench) => bench.measure(work, keys, relays).await,
            Self::Mariadb(bench) => bench.measure(work, keys, relays).await,
            Self::Mongodb(bench) => bench.measure(work, keys, relays).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    let mut bench = Bench::start(arguments.storage, arguments.messages, arguments.batch).await?;
    let mut cases = Vec::new();
    for work in [Work::Enqueue, Work::Drain] {
        for keys in Keys::CASES {
            cases.extend(arguments.relays.iter().map(|relays| (work, keys, *relays)));
        }
    }
    let progress = if arguments.json { ProgressBar::hidden() } else { bar(cases.len() as u64) };
    let mut rows = Vec::new();
    for (work, keys, relays) in cases {
        progress.set_message(format!("{work:?}, {}, {relays} relays", keys.name()));
        let mut taken = Vec::new();
        for _ in 0..arguments.runs {
            taken.push(bench.measure(work, keys, relays.max(1)).await?);
        }
        taken.sort_by(|left, right| left.ratio.total_cmp(&right.ratio));
        let row = taken.swap_remove(taken.len() / 2);
        if arguments.json {
            writeln!(io::stdout(), "{}", serde_json::to_string(&row)?)?;
        }
        rows.push(row);
        progress.inc(1);
    }
    progress.finish_and_clear();
    if !arguments.json {
        table(&rows)?;
    }
    Ok(())
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn table(rows: &[Row]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "storage  work     case        relays  batch   floor/s    ours/s  ratio    loop/s  server us  floor us"
    )?;
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
        let plain = row.loop_per_s.map_or_else(String::new, |rate| rate.to_string());
        writeln!(
            out,
            "{:<8} {:<8} {:<10} {:>7} {:>6} {:>9} {:>9} {:>6.2} {:>9} {:>10} {:>9}",
            row.storage,
            format!("{:?}", row.work).to_lowercase(),
            row.case,
            row.relays,
            row.batch,
            row.floor_per_s,
            row.ours_per_s,
            row.ratio,
            plain,
            number(row.server_us),
            number(row.floor_server_us)
        )?;
    }
    Ok(())
}
