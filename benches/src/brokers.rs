use crate::row::hundredths;
use crate::{BoxError, Row, Work};
use pillarbox_testkit::throughput::{self, BATCH};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// A transport that has a throughput program of its own: its example `throughput`, which knows the client that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BrokerName {
    /// `pillarbox-redis-streams`.
    RedisStreams,
    /// `pillarbox-rabbitmq`.
    Rabbitmq,
    /// `pillarbox-nats`.
    Nats,
    /// `pillarbox-kafka`.
    Kafka,
    /// `pillarbox-http`.
    Http,
}

impl BrokerName {
    /// The transport.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisStreams => "redis-streams",
            Self::Rabbitmq => "rabbitmq",
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Http => "http",
        }
    }
}

/// Relays out of a store that does nothing into a real broker, beside the broker's client alone: runs the transport's own program,
/// which Cargo builds first. `told` hears of each row as it comes, and what it fails with ends it.
///
/// # Errors
/// If it cannot be built, or fails.
pub async fn publish(
    broker: BrokerName,
    told: impl Fn(&Row) -> Result<(), BoxError>,
) -> Result<Vec<Row>, BoxError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let package = format!("pillarbox-{}", broker.name());
    let mut program = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", &package, "--example", "throughput"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"), "--", "--json"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut rows = Vec::new();
    if let Some(printed) = program.stdout.take() {
        let mut lines = BufReader::new(printed).lines();
        while let Some(line) = lines.next_line().await? {
            let row = row(serde_json::from_str(&line)?);
            told(&row)?;
            rows.push(row);
        }
    }
    let ended = program.wait().await?;
    if ended.success() {
        Ok(rows)
    } else {
        Err(format!("the throughput program of {package} failed: {ended}").into())
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far below 2^63"
)]
fn row(told: throughput::Row) -> Row {
    let mut row = Row::new("nothing", Work::Publish, 1, BATCH as u32);
    (row.transport, row.case, row.floor) = (told.transport, told.case, "client-alone");
    row.rates(told.client_per_s.max(told.client_batches_per_s) as u64, told.relay_per_s as u64);
    row.server_us = told.server_us.map(hundredths);
    row.floor_server_us = told.client_server_us.map(hundredths);
    (row.p50_ms, row.p99_ms) = (Some(hundredths(told.p50_ms)), Some(hundredths(told.p99_ms)));
    row.floor_p50_ms = Some(hundredths(told.client_p50_ms));
    row.client_us = Some(hundredths(told.relay_us));
    row.floor_client_us = Some(hundredths(told.client_us));
    row
}
