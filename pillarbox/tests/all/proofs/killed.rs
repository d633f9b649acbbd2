//! The program itself: JSON lines through `pillarbox enqueue` into Redis, two `pillarbox relay` to RabbitMQ, one of them
//! killed with SIGKILL half-way.

use super::consumer::consume;
use super::{Collector, Ledger, eventually};
use pillarbox::MessageId;
use pillarbox_testkit::servers::{RabbitMqNode, RedisServer};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `PILLARBOX_LINES` for a longer run.
fn lines(default: u32) -> u32 {
    std::env::var("PILLARBOX_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(default)
}

const KEYS: u32 = 50;
const MAX_IN_FLIGHT: usize = 400;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn relay(storage: &str, transport: &str) -> Program {
    let child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args([
            "relay",
            "--storage",
            storage,
            "--transport",
            transport,
            "--lease",
            "2s",
            "--batch-size",
            "100",
        ])
        .args(["--max-in-flight", "400", "--log", "warn"])
        .stdin(Stdio::null())
        .spawn();
    Program(child.unwrap())
}

/// Pipes numbered lines through the program, and answers their ids.
fn enqueue(storage: &str, lines: u32) -> Ledger {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args(["enqueue", "--storage", storage])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ledger = Ledger::default();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    for number in 0..lines {
        let id = MessageId::generate();
        ledger.record(id, true);
        let key = number % KEYS;
        writeln!(input, r#"{{"topic":"orders","key":"order-{key}","id":"{id}","payload":"{number}"}}"#)
            .unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
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
    let mut victim = relay(&storage, &transport);
    let _survivor = relay(&storage, &transport);
    let half = lines as usize / 2;
    eventually("half has arrived", Duration::from_secs(120), async || collector.total() >= half).await;
    victim.0.kill().unwrap();
    eventually("everything has arrived", Duration::from_secs(120), async || collector.has_all_of(&ledger))
        .await;
    consumer.abort();

    collector.assert_everything_arrived(&ledger);
    collector.assert_ordered();
    let duplicated = collector.total() - collector.distinct();
    println!("in flight at the kill: at most {MAX_IN_FLIGHT}; duplicated: {duplicated}");
    assert!(duplicated <= MAX_IN_FLIGHT, "{duplicated} duplicates");
}
