//! Whether a claim takes longer after many messages were published than on an empty table.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin published -- --storage postgres
//! ```
//!
//! Each case has a database of its own. It measures claims, publishes many messages, and measures again: with nothing beside it; while an
//! idle transaction is open from the beginning to the end, so that the database may remove nothing of what was deleted; and with
//! retention. A claim is measured on as many messages as it may take, which were enqueued just before.

use clap::{Parser, ValueEnum};
use pillarbox_benches::{BoxError, Keys};
use pillarbox_core::{Admin as _, Claim, Claimed, Message, Nonce, Settlements, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer, ServerFolder};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// Compares claims on an empty table with claims after many messages were published.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which storage; each case starts one of its own.
    #[arg(long, value_enum, default_value = "postgres")]
    storage: StorageName,
    /// How many messages are published between the two measurements.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u32,
    /// How many messages a claim takes.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// How many claims are measured, before and after.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    claims: u32,
    /// Only these cases.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Case::Alone, Case::Idle, Case::Kept])]
    cases: Vec<Case>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StorageName {
    Sqlite,
    Postgres,
    Mariadb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Nothing beside it.
    Alone,
    /// Beside a transaction that has read and written elsewhere, and is idle for the whole run.
    Idle,
    /// Published messages are kept.
    Kept,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    writeln!(io::stdout(), "case     stored  claim µs: empty p50    p99   after p50    p99  ratio of p50")?;
    for case in &arguments.cases {
        match arguments.storage {
            StorageName::Sqlite => {
                let folder = ServerFolder::create("sqlite")?;
                let url = format!("sqlite://{}?mode=rwc", folder.path().join("bench.db").display());
                measure::<sqlx::Sqlite>(&arguments, *case, &url).await?;
            }
            StorageName::Postgres => {
                let server = PostgresServer::start()?;
                measure::<sqlx::Postgres>(&arguments, *case, &server.url()).await?;
            }
            StorageName::Mariadb => {
                let server = MariaDbServer::start()?;
                measure::<sqlx::MySql>(&arguments, *case, &server.url()).await?;
            }
        }
    }
    Ok(())
}

async fn measure<D: Dialect>(arguments: &Arguments, case: Case, url: &str) -> Result<(), BoxError> {
    let config = SqlConfig::<D>::from_url(url)?.keep_published(case == Case::Kept);
    SqlStorage::migrate(&config).await?;
    let outbox = SqlStorage::connect(config).await?;
    let mut idle = outbox.pool().acquire().await?;
    if case == Case::Idle {
        hold_open::<D>(&mut idle).await?;
    }
    let mut loops = Loop { outbox, batch: arguments.batch, number: 0 };
    // Plans and caches are made by the first ones.
    loops.claims(20).await?;
    let empty = loops.claims(arguments.claims).await?;
    loops.publish(arguments.messages).await?;
    let after = loops.claims(arguments.claims).await?;
    let stored = loops.outbox.stats().await?.published;
    let (before, now) = (place(&empty, 0.5), place(&after, 0.5));
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a claim are far below 2^52")]
    let ratio = now as f64 / before.max(1) as f64;
    writeln!(
        io::stdout(),
        "{:<6} {stored:>8} {before:>20} {:>6} {now:>11} {:>6} {ratio:>13.2}",
        format!("{case:?}").to_lowercase(),
        place(&empty, 0.99),
        place(&after, 0.99),
    )?;
    Ok(())
}

/// Begins a transaction that has a snapshot, and where the database numbers those that write, a number.
async fn hold_open<D: Dialect>(connection: &mut D::Connection) -> Result<(), BoxError> {
    D::script(connection, "CREATE TABLE elsewhere (number bigint)".to_owned()).await?;
    let begin = match D::PRODUCT {
        "SQLite" => "BEGIN; SELECT count(*) FROM elsewhere",
        "PostgreSQL" => "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO elsewhere VALUES (1)",
        _ => {
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET SESSION idle_transaction_timeout = 0; \
              START TRANSACTION WITH CONSISTENT SNAPSHOT; INSERT INTO elsewhere VALUES (1)"
        }
    };
    Ok(D::script(connection, begin.to_owned()).await?)
}

struct Loop<D: Dialect> {
    outbox: SqlStorage<D>,
    batch: u32,
    number: u64,
}

impl<D: Dialect> Loop<D> {
    /// Times of claims, in microseconds, in order of size. Each finds a full batch.
    async fn claims(&mut self, count: u32) -> Result<Vec<u128>, BoxError> {
        let batch: Vec<Message> =
            (0..self.batch).map(|number| Keys::Of(100).message(number)).collect::<Result<_, _>>()?;
        let mut times = Vec::new();
        for _ in 0..count {
            self.outbox.enqueue_alone(&batch).await?;
            let (claimed, took) = self.claim().await?;
            if claimed.entries.len() != batch.len() {
                return Err(format!("a claim found {} messages", claimed.entries.len()).into());
            }
            times.push(took.as_micros());
            self.settle(&claimed).await?;
        }
        times.sort_unstable();
        Ok(times)
    }

    async fn publish(&mut self, messages: u32) -> Result<(), BoxError> {
        let numbers: Vec<u32> = (0..messages).collect();
        for numbers in numbers.chunks(1_000) {
            let batch: Vec<Message> =
                numbers.iter().map(|number| Keys::Of(100).message(*number)).collect::<Result<_, _>>()?;
            self.outbox.enqueue_alone(&batch).await?;
            let mut left = batch.len();
            while left > 0 {
                let (claimed, _) = self.claim().await?;
                left -= claimed.entries.len();
                self.settle(&claimed).await?;
            }
        }
        Ok(())
    }

    async fn claim(&mut self) -> Result<(Claimed, Duration), BoxError> {
        self.number += 1;
        let nonce = Nonce::from_words(self.number, 1);
        let claim = Claim { limit: self.batch, lease: Duration::from_secs(30), nonce, solo: false };
        let begun = Instant::now();
        let claimed = self.outbox.claim(claim).await?;
        Ok((claimed, begun.elapsed()))
    }

    async fn settle(&self, claimed: &Claimed) -> Result<(), BoxError> {
        let mut call = Settlements::new();
        for run in &claimed.runs {
            call.verdicts(run.token, claimed.entries_of(run).iter().map(|_| Verdict::Published));
        }
        self.outbox.settle(&call).await?;
        Ok(())
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "there are some hundred"
)]
fn place(times: &[u128], part: f64) -> u128 {
    times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default()
}
