//! The program itself: JSON lines through `pillarbox enqueue` into Redis, two `pillarbox relay` to RabbitMQ, one of them
//! killed with SIGKILL half-way.

use super::consumer::consume;
use super::{Collector, Ledger, eventually};
use crate::program::run::{Relay, program};
use pillarbox::MessageId;
use pillarbox_testkit::servers::{RabbitMqNode, RedisServer};
use rustix::process::Signal;
use std::io::{BufWriter, Write as _};
use std::process::Stdio;
use std::time::Duration;

/// `PILLARBOX_LINES` for a longer run.
fn lines(default: u32) -> u32 {
    std::env::var("PILLARBOX_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(default)
}

const KEYS: u32 = 50;
const BATCH: usize = 100;
const MAX_IN_FLIGHT: usize = 400;

fn relay(storage: &str, transport: &str) -> Relay {
    let (batch, max_in_flight) = (BATCH.to_string(), MAX_IN_FLIGHT.to_string());
    let ends = ["relay", "--storage", storage, "--transport", transport, "--log", "error"];
    let settings = ["--lease", "2s", "--batch-size", &batch, "--max-in-flight", &max_in_flight];
    Relay::start(&[&ends[..], &settings].concat())
}

/// Pipes numbered lines through the program.
fn enqueue(storage: &str, lines: u32) -> Ledger {
    let mut child =
        program(&["enqueue", "--storage", storage, "--log", "error"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut ledger = Ledger::default();
    let mut input = BufWriter::new(child.stdin.take().unwrap());
    for number in 0..lines {
        let id = MessageId::generate();
        ledger.record(id, true);
        let key = number % KEYS;
        writeln!(input, r#"{{"topic":"orders","key":"order-{key}","id":"{id}","payload":"{number}"}}"#)
            .unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ledger
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_killed_half_way() {
    let server = RedisServer::start().unwrap();
    let node = tokio::task::spawn_blocking(|| RabbitMqNode::shared().unwrap()).await.unwrap();
    let virtual_host = tokio::task::spawn_blocking(|| node.virtual_host().unwrap()).await.unwrap();
    let (storage, transport) = (server.url(), virtual_host.url());
    let collector = Collector::default();
    let consumer = tokio::spawn(consume(transport.clone(), "orders", collector.clone()));

    let lines = lines(10_000);
    let url = storage.clone();
    let ledger = tokio::task::spawn_blocking(move || enqueue(&url, lines)).await.unwrap();
    // A busy machine lets a node that has just started wait longer than an operator would.
    let patient = format!("{transport}?transport.connect_timeout=60s");
    let victim = relay(&storage, &patient);
    let mut survivor = relay(&storage, &patient);
    let half = lines as usize / 2;
    eventually("half has arrived", Duration::from_secs(120), async || collector.total() >= half).await;
    victim.signal(Signal::KILL);
    eventually("everything has arrived", Duration::from_secs(120), async || collector.has_all_of(&ledger))
        .await;
    survivor.signal(Signal::TERM);
    let (_, report) = tokio::task::spawn_blocking(move || survivor.end()).await.unwrap();
    consumer.abort();

    collector.assert_everything_arrived(&ledger);
    collector.assert_ordered();
    let duplicated = collector.total() - collector.distinct();
    let fenced: usize = report.trim().rsplit(' ').next().unwrap().parse().unwrap();
    println!(
        "in flight at the kill: at most {MAX_IN_FLIGHT}; fenced runs: {fenced}; duplicated: {duplicated}"
    );
    assert!(duplicated <= MAX_IN_FLIGHT + fenced * BATCH, "{duplicated} duplicates; {report}");
}
