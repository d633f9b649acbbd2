//! Shows that a backlog costs nothing but its own time: the relay's memory and the longest call to the server stay as they
//! are, however much is waiting.
//!
//! ```text
//! cargo run --release -p pillarbox-benches --bin backlog
//! ```

use clap::Parser;
use pillarbox_benches::{BoxError, Drained, RedisBacklog, ServerCalls, drain_here, progress};
use pillarbox_redis::RedisStorage;
use serde::Serialize;
use std::io::{self, Write as _};

/// Drains a small and a large backlog in Redis, each with a relay in a process of its own.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many messages are pending, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000])]
    pending: Vec<u32>,
    /// How many more fall due at one moment.
    #[arg(long, default_value_t = 20_000)]
    scheduled: u32,
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

#[derive(Debug, Serialize)]
struct Row {
    pending: u32,
    scheduled: u32,
    #[serde(flatten)]
    drained: Drained,
    #[serde(flatten)]
    calls: ServerCalls,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    if let (Some(url), Some(count)) = (&arguments.relay, arguments.count) {
        writeln!(
            io::stdout(),
            "{}",
            serde_json::to_string(&drain_here(&RedisStorage::open(url).await?, count).await?)?
        )?;
        return Ok(());
    }
    let mut out = io::stdout();
    if !arguments.json {
        writeln!(
            out,
            "   pending  scheduled   drained/s  relay before MiB  relay peak MiB  slowest call ms  p99.9 ms   calls"
        )?;
    }
    for pending in &arguments.pending {
        let row = measure(*pending, arguments.scheduled).await?;
        if arguments.json {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
            continue;
        }
        let Row { drained, calls, .. } = &row;
        writeln!(
            out,
            "{:>10} {:>10} {:>11} {:>17.1} {:>15.1} {:>16.2} {:>9.2} {:>7}",
            row.pending,
            row.scheduled,
            drained.per_s,
            drained.resident_before_mib,
            drained.resident_peak_mib,
            calls.slowest_ms,
            calls.p999_ms,
            calls.calls
        )?;
    }
    Ok(())
}

async fn measure(pending: u32, scheduled: u32) -> Result<Row, BoxError> {
    let count = u64::from(pending) + u64::from(scheduled);
    let progress = progress(false, count, "redis");
    progress.set_message("enqueueing");
    let mut backlog = RedisBacklog::fill(pending, scheduled, |more| progress.inc(more as u64)).await?;
    progress.set_message("draining");
    let relay = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--relay", &backlog.url(), "--count", &count.to_string()])
        .output()
        .await?;
    if !relay.status.success() {
        return Err(String::from_utf8_lossy(&relay.stderr).into());
    }
    let drained = serde_json::from_slice(&relay.stdout)?;
    progress.finish_and_clear();
    Ok(Row { pending, scheduled, drained, calls: backlog.calls().await? })
}
