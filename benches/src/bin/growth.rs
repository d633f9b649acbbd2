//! Whether a claim takes longer, or a relay more memory, when much is stored: pending, scheduled, fallen due at one moment, published
//! or dead.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin growth
//! cargo run --release -p pillarbox-benches --bin growth -- --storage redis,postgres --stored 10000000
//! ```
//!
//! Each row has a server of its own, and a relay in a process of its own; the storage in memory is in this process, and so is its relay,
//! whose memory is then told with that of the messages. Redis and memory keep nothing of what was published, so that their rows of
//! published messages show only that nothing remains.

use clap::{Parser, ValueEnum};
use pillarbox_benches::{BoxError, ClaimTimes, Drained, Stored, claims, drain_here, fill, progress};
use pillarbox_core::{EnqueueAlone, Storage};
use pillarbox_memory::MemoryStorage;
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_redis::RedisStorage;
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::{MariaDbServer, MongoServer, PostgresServer, RedisServer, ServerFolder};
use serde::Serialize;
use std::io::{self, Write as _};
use std::time::Duration;

/// Measures claims and a relay's memory beside what is stored.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which storages; each row starts a server of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [StorageName::Redis, StorageName::Postgres])]
    storage: Vec<StorageName>,
    /// What is stored.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Stored::value_variants().to_vec())]
    state: Vec<Stored>,
    /// How much of it, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000])]
    stored: Vec<u32>,
    /// How many claims are measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    claims: u32,
    /// How many messages a claim has.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// Prints a JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
    /// Drains the outbox at this URL: what this program starts itself with, to measure a relay alone.
    #[arg(long, hide = true, requires = "count")]
    relay: Option<String>,
    /// How many messages are there.
    #[arg(long, hide = true)]
    count: Option<u64>,
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

#[derive(Debug, Serialize)]
struct Row {
    storage: String,
    state: Stored,
    stored: u32,
    #[serde(flatten)]
    times: ClaimTimes,
    #[serde(flatten)]
    drained: Drained,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    if let (Some(url), Some(count), Some(storage)) =
        (&arguments.relay, arguments.count, arguments.storage.first())
    {
        let drained = match storage {
            StorageName::Memory => return Err("no other process sees the storage in memory".into()),
            StorageName::Redis => drain_here(&RedisStorage::open(url).await?, count).await?,
            StorageName::Postgres => drain_here(&sql::<sqlx::Postgres>(url).await?, count).await?,
            StorageName::Sqlite => drain_here(&sql::<sqlx::Sqlite>(url).await?, count).await?,
            StorageName::Mariadb => drain_here(&sql::<sqlx::MySql>(url).await?, count).await?,
            StorageName::Mongodb => drain_here(&mongodb(url).await?, count).await?,
        };
        writeln!(io::stdout(), "{}", serde_json::to_string(&drained)?)?;
        return Ok(());
    }
    if !arguments.json {
        writeln!(
            io::stdout(),
            "storage   state          stored  claim p50 ms  p99 ms  max ms  settle p50 ms  max ms  drained/s  relay before MiB  relay peak MiB"
        )?;
    }
    for storage in &arguments.storage {
        for state in &arguments.state {
            for stored in &arguments.stored {
                let row = measure(&arguments, *storage, *state, *stored).await?;
                print(&row, arguments.json)?;
            }
        }
    }
    Ok(())
}

async fn measure(
    arguments: &Arguments,
    name: StorageName,
    state: Stored,
    stored: u32,
) -> Result<Row, BoxError> {
    let case = Case { arguments, name, state, stored };
    match name {
        StorageName::Memory => case.run(&MemoryStorage::new(), None).await,
        StorageName::Redis => {
            let server = RedisServer::start()?;
            let url = format!("{}?outbox.name=growth", server.url());
            case.run(&RedisStorage::open(&url).await?, Some(&url)).await
        }
        StorageName::Postgres => {
            let server = PostgresServer::start()?;
            case.run(&sql::<sqlx::Postgres>(&server.url()).await?, Some(&server.url())).await
        }
        StorageName::Sqlite => {
            let folder = ServerFolder::create("sqlite")?;
            let url = format!("sqlite://{}?mode=rwc", folder.path().join("growth.db").display());
            case.run(&sql::<sqlx::Sqlite>(&url).await?, Some(&url)).await
        }
        StorageName::Mariadb => {
            let server = MariaDbServer::start()?;
            case.run(&sql::<sqlx::MySql>(&server.url()).await?, Some(&server.url())).await
        }
        StorageName::Mongodb => {
            let server = MongoServer::start()?;
            let url = server.url("growth");
            case.run(&mongodb(&url).await?, Some(&url)).await
        }
    }
}

struct Case<'a> {
    arguments: &'a Arguments,
    name: StorageName,
    state: Stored,
    stored: u32,
}

impl Case<'_> {
    /// Measures on `storage`; the relay of another process opens it at `url`.
    async fn run<S>(&self, storage: &S, url: Option<&str>) -> Result<Row, BoxError>
    where
        S: Storage + EnqueueAlone + Clone + 'static,
    {
        let name =
            self.name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let progress = progress(self.arguments.json, u64::from(self.stored), &name);
        progress.set_message(format!("storing, {}", self.state.name()));
        fill(storage, self.state, self.stored, |more| progress.inc(u64::from(more))).await?;
        progress.set_message("claiming");
        let times = claims(storage, self.arguments.claims, self.arguments.batch).await?;
        progress.set_message("relaying");
        // As much again for the relay, where nothing waits.
        let count = self.arguments.claims * self.arguments.batch;
        let count = match self.state {
            Stored::Pending | Stored::Due => u64::from(self.stored),
            Stored::Scheduled | Stored::Published | Stored::Dead => {
                fill(storage, Stored::Pending, count, |_| ()).await?;
                u64::from(count)
            }
        };
        let drained = match url {
            Some(url) => drain_elsewhere(&name, url, count).await?,
            None => drain_here(storage, count).await?,
        };
        progress.finish_and_clear();
        Ok(Row { storage: name, state: self.state, stored: self.stored, times, drained })
    }
}

/// Drains with a relay in a process of its own.
async fn drain_elsewhere(storage: &str, url: &str, count: u64) -> Result<Drained, BoxError> {
    let relay = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--storage", storage, "--relay", url, "--count", &count.to_string()])
        .output()
        .await?;
    if !relay.status.success() {
        return Err(String::from_utf8_lossy(&relay.stderr).into());
    }
    Ok(serde_json::from_slice(&relay.stdout)?)
}

/// Published messages are kept: a table that grows is what is asked about.
async fn sql<D: Dialect>(url: &str) -> Result<SqlStorage<D>, BoxError> {
    let config = SqlConfig::<D>::from_url(url)?.keep_published(true);
    SqlStorage::migrate(&config).await?;
    Ok(SqlStorage::connect(config).await?)
}

async fn mongodb(url: &str) -> Result<MongoStorage, BoxError> {
    let config = MongoConfig::from_url(url)?.keep_published(true).response_timeout(Duration::from_secs(60));
    Ok(MongoStorage::connect(config).await?)
}

fn print(row: &Row, json: bool) -> Result<(), BoxError> {
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(row)?)?;
        return Ok(());
    }
    let Row { times, drained, .. } = row;
    writeln!(
        out,
        "{:<9} {:<9} {:>11} {:>13.3} {:>7.3} {:>7.3} {:>14.3} {:>7.3} {:>10} {:>17.1} {:>15.1}",
        row.storage,
        row.state.name(),
        row.stored,
        times.claim_p50_ms,
        times.claim_p99_ms,
        times.claim_max_ms,
        times.settle_p50_ms,
        times.settle_max_ms,
        drained.per_s,
        drained.resident_before_mib,
        drained.resident_peak_mib
    )?;
    Ok(())
}
