//! Other outboxes and queues beside Pillarbox: each drains the same payloads from the same server at the same durability, turn by turn
//! in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --storage redis --runs 5
//! ```
//!
//! Each is set up as its documentation recommends for throughput, in batches of the same size where it has batches. None of them promises
//! all of what Pillarbox does; the last column says what is missing.

mod mongodb;
mod peer;
mod postgres;
mod redis;

use clap::{Parser, ValueEnum};
use peer::{Measured, Ours, Peer};
use pillarbox_benches::{BoxError, MongoBench, RedisBench, SqlBench, Subject, progress};

/// Drains outboxes and queues side by side.
#[derive(Debug, Parser)]
struct Arguments {
    /// On which servers; each is started.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Server::Redis, Server::Mongodb, Server::Postgres])]
    storage: Vec<Server>,
    /// How many messages Pillarbox drains in each round; the slow ones drain a part of it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1_000..))]
    messages: Option<u32>,
    /// How many messages a claim has.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// How often each drains; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Prints a JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Server {
    Redis,
    Mongodb,
    Postgres,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    if !arguments.json {
        println!("{:<9} {:<24} {:>9} {:>12}  promises less", "server", "who", "drain/s", "ours is");
    }
    for server in &arguments.storage {
        let batch = arguments.batch;
        match server {
            Server::Redis => {
                let ours = RedisBench::start().await?;
                let url = ours.url();
                let peers: Vec<Box<dyn Peer>> =
                    vec![Box::new(redis::Apalis::new(&url, batch)), Box::new(redis::Oxana::new(&url))];
                compare(&arguments, ours, peers, arguments.messages.unwrap_or(200_000)).await?;
            }
            Server::Mongodb => {
                let ours = MongoBench::start().await?;
                let url = ours.url();
                let peers: Vec<Box<dyn Peer>> = vec![
                    Box::new(mongodb::MqBridge::new(&url, batch)),
                    Box::new(mongodb::OneByOne::connect(&url).await?),
                ];
                compare(&arguments, ours, peers, arguments.messages.unwrap_or(60_000)).await?;
            }
            Server::Postgres => {
                let ours = SqlBench::postgres().await?;
                let url = ours.url();
                let peers: Vec<Box<dyn Peer>> = vec![
                    Box::new(postgres::OutboxPostgres::connect(&url, batch).await?),
                    Box::new(postgres::Original::connect(&url).await?),
                ];
                compare(&arguments, ours, peers, arguments.messages.unwrap_or(30_000)).await?;
            }
        }
    }
    Ok(())
}

async fn compare<S: Subject + 'static>(
    arguments: &Arguments,
    ours: S,
    peers: Vec<Box<dyn Peer>>,
    messages: u32,
) -> Result<(), BoxError> {
    let server = ours.name();
    let mut all: Vec<Box<dyn Peer>> = vec![Box::new(Ours::new(ours, arguments.batch))];
    all.extend(peers);
    let progress = progress(arguments.json, u64::from(arguments.runs), server);
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    for _ in 0..arguments.runs {
        for (peer, rates) in all.iter_mut().zip(&mut rates) {
            progress.set_message(peer.name());
            let Measured { drained, took } = peer.drain((messages / peer.part()).max(1)).await?;
            rates.push(f64::from(drained) / took.as_secs_f64());
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    for (peer, rate) in all.iter().zip(&medians) {
        let times = medians[0] / rate;
        if arguments.json {
            let row = serde_json::json!({
                "server": server, "who": peer.name(), "drain_per_s": rate.round(), "ours_is": times,
                "batch": arguments.batch, "promises_less": peer.promises_less(),
            });
            println!("{row}");
        } else {
            println!("{server:<9} {:<24} {rate:>9.0} {times:>10.2} x  {}", peer.name(), peer.promises_less());
        }
    }
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
