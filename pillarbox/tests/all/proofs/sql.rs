//! Several processes on one outbox in a SQL database: programs that enqueue side by side, and three relays, of which two are killed with
//! SIGKILL under load.

use super::{Collector, Ledger, eventually};
use crate::program::run::program;
use pillarbox::MessageId;
#[cfg(feature = "mysql")]
use pillarbox_testkit::servers::MariaDbServer;
#[cfg(feature = "postgres")]
use pillarbox_testkit::servers::PostgresServer;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// The program in a folder of its own, with no other program in reach.
fn program_in(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    command.current_dir(folder).env("PATH", "");
    command
}

const PRODUCERS: u32 = 3;
const LINES: u32 = 2_000;
const KEYS: u32 = 10;
const BATCH: usize = 50;
const MAX_IN_FLIGHT: usize = 200;

/// Pipes numbered lines through a program that enqueues; keys and numbers of its own.
fn enqueue(folder: &Path, storage: &str, producer: u32) -> Ledger {
    let arguments = ["enqueue", "--storage", storage, "--log", "error"];
    let mut child = program_in(folder, &arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut ledger = Ledger::default();
    let mut input = BufWriter::new(child.stdin.take().unwrap());
    for number in 0..LINES {
        let id = MessageId::generate();
        ledger.record(id, true);
        let key = producer * KEYS + number % KEYS;
        writeln!(input, r#"{{"topic":"orders","key":"order-{key}","id":"{id}","payload":"{number}"}}"#)
            .unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ledger
}

/// A relay to its standard output, which the collector reads; killed when it is dropped.
struct Relay {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Relay {
    fn start(folder: &Path, storage: &str, collector: &Collector) -> Self {
        let (batch, max_in_flight) = (BATCH.to_string(), MAX_IN_FLIGHT.to_string());
        let ends = ["relay", "--storage", storage, "--transport", "stdout:", "--log", "error"];
        let settings = ["--lease", "2s", "--batch-size", &batch, "--max-in-flight", &max_in_flight];
        let arguments = [&ends[..], &settings].concat();
        let mut child = program_in(folder, &arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let (output, collector) = (BufReader::new(child.stdout.take().unwrap()), collector.clone());
        let reader = std::thread::spawn(move || {
            for line in output.lines() {
                // A killed relay may end in the middle of a line, which is then no message.
                let Ok(line) = serde_json::from_str::<serde_json::Value>(&line.unwrap()) else { continue };
                let text = |field: &str| line[field].as_str().unwrap();
                collector.deliver(text("id").parse().unwrap(), Some(text("key")), text("payload").as_bytes());
            }
        });
        Self { child, reader: Some(reader) }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and until everything that it wrote was read.
    fn end(mut self) -> std::process::ExitStatus {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        status
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn relays_are_killed_under_load(storage: &str) {
    let folder = tempfile::tempdir().unwrap();
    let status = program_in(folder.path(), &["migrate", "--storage", storage]).status().unwrap();
    assert!(status.success(), "{status}");
    let collector = Collector::default();
    let relays: Vec<_> = (0..3).map(|_| Relay::start(folder.path(), storage, &collector)).collect();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let (folder, storage) = (folder.path().to_owned(), storage.to_owned());
            tokio::task::spawn_blocking(move || enqueue(&folder, &storage, producer))
        })
        .collect();
    // The producers are still at it.
    let limit = Duration::from_secs(120);
    let mut relays = relays.into_iter();
    for part in [1, 2] {
        let enough = (PRODUCERS * LINES / 3 * part) as usize;
        eventually("a part has arrived", limit, async || collector.total() >= enough).await;
        let victim = relays.next().unwrap();
        victim.signal(Signal::KILL);
        tokio::task::spawn_blocking(move || victim.end()).await.unwrap();
    }
    let mut ledger = Ledger::default();
    for producer in producers {
        let Ledger { attempted, acknowledged } = producer.await.unwrap();
        ledger.attempted.extend(attempted);
        ledger.acknowledged.extend(acknowledged);
    }
    eventually("everything has arrived", limit, async || collector.has_all_of(&ledger)).await;
    // What a victim had sent and not settled is the survivor's when the lease has ended.
    let left = async || {
        let (folder, storage) = (folder.path().to_owned(), storage.to_owned());
        tokio::task::spawn_blocking(move || waiting(&folder, &storage)).await.unwrap()
    };
    eventually("everything is settled", limit, async || left().await == (0, 0)).await;
    let survivor = relays.next().unwrap();
    survivor.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || survivor.end()).await.unwrap();
    assert!(status.success(), "{status}");

    collector.assert_everything_arrived(&ledger);
    let duplicated = collector.total() - collector.distinct();
    println!("in flight at each kill: at most {MAX_IN_FLIGHT}; duplicated: {duplicated}");
    assert_eq!(left().await, (0, 0));
}

/// How many messages are pending, and how many are claimed.
fn waiting(folder: &Path, storage: &str) -> (u64, u64) {
    let stats = program_in(folder, &["status", "--json", "--storage", storage]).output().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    (stats["pending"].as_u64().unwrap(), stats["claimed"].as_u64().unwrap())
}

/// With nothing installed: the file is where the program runs.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn relays_on_one_sqlite_file_are_killed_under_load() {
    relays_are_killed_under_load("sqlite:outbox.db").await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn relays_on_postgres_are_killed_under_load() {
    let server = tokio::task::spawn_blocking(|| PostgresServer::start().unwrap()).await.unwrap();
    relays_are_killed_under_load(&server.url()).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn relays_on_mariadb_are_killed_under_load() {
    let server = tokio::task::spawn_blocking(|| MariaDbServer::start().unwrap()).await.unwrap();
    relays_are_killed_under_load(&server.url()).await;
}
