//! The store and the broker are killed and started again, over and over, while relays run: nothing is lost, nothing is
//! charged, nothing is buried, and the relays recover by themselves.

use super::consumer::consume;
use super::{Collector, Ledger, Running, eventually, numbered};
use pillarbox::rabbitmq::RabbitMqTransport;
use pillarbox::redis::RedisStorage;
use pillarbox::{Backoff, Observation, Observer, Relay, RelayConfig, Storage as _, TokioTimer, Transport};
use pillarbox_testkit::servers::{RabbitMqNode, RedisServer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const KEYS: u32 = 20;

/// Counts what must not happen.
#[derive(Clone, Debug, Default)]
struct Charges {
    retried: Arc<AtomicU32>,
    buried: Arc<AtomicU32>,
    suspected: Arc<AtomicU32>,
    paused: Arc<AtomicU32>,
    store_failures: Arc<AtomicU32>,
}

impl Observer for Charges {
    fn observe(&self, observation: &Observation<'_>) {
        let counter = match observation {
            Observation::Retried { reason, .. } => {
                println!("retried: {reason}");
                &self.retried
            }
            Observation::Buried { reason, .. } => {
                println!("buried: {reason}");
                &self.buried
            }
            Observation::Claimed { buried, .. } if *buried > 0 => &self.buried,
            Observation::Claimed { suspects, .. } if *suspects > 0 => &self.suspected,
            Observation::Paused { .. } => &self.paused,
            Observation::StoreFailed { .. } => &self.store_failures,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Charges {
    fn assert_none(&self) {
        let counts =
            [&self.retried, &self.suspected, &self.buried].map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!(counts, [0; 3], "attempts charged, messages suspected after strikes, messages buried");
    }
}

/// How often each server is killed. `PILLARBOX_KILLS` for a longer run.
fn kills(default: u32) -> u32 {
    std::env::var("PILLARBOX_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(default)
}

fn spawn_relay(storage: &RedisStorage, transport: impl Transport + 'static, charges: &Charges) -> Running {
    let config = RelayConfig::default()
        .lease(Duration::from_secs(60))
        .pause(Backoff::new(Duration::from_millis(50), Duration::from_millis(500)));
    let relay = Relay::new(storage.clone(), transport, config).unwrap().observer(charges.clone());
    Running::spawn(relay.timer(TokioTimer::new()).run(std::future::pending()))
}

/// Enqueues while `kill` runs `times` times.
async fn enqueue_while(
    storage: &RedisStorage,
    times: u32,
    kill: impl Fn() + Clone + Send + 'static,
) -> Ledger {
    let mut ledger = Ledger::default();
    for _ in 0..times {
        let outage = tokio::task::spawn_blocking(kill.clone());
        while !outage.is_finished() {
            let number = u32::try_from(ledger.attempted.len()).unwrap();
            let message = numbered(number, KEYS);
            let outcome = storage.enqueue_alone(std::slice::from_ref(&message)).await;
            ledger.record(message.id(), outcome.is_ok());
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        outage.await.unwrap();
    }
    ledger
}

async fn assert_settled(storage: &RedisStorage) {
    let admin = storage.admin().unwrap();
    eventually("everything is settled", Duration::from_secs(120), async || {
        admin.stats().await.is_ok_and(|stats| stats.pending + stats.scheduled + stats.claimed == 0)
    })
    .await;
    assert_eq!(admin.stats().await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_restarted_while_relays_run() {
    let server = Arc::new(RedisServer::options().append_only().start().unwrap());
    let storage = RedisStorage::open(&server.url()).await.unwrap();
    let (collector, charges) = (Collector::default(), Charges::default());
    let relays = [(); 2].map(|()| spawn_relay(&storage, collector.clone(), &charges));
    let victim = server.clone();
    let ledger = enqueue_while(&storage, kills(10), move || {
        std::thread::sleep(Duration::from_millis(150));
        victim.kill();
        std::thread::sleep(Duration::from_millis(50));
        victim.restart().unwrap();
    })
    .await;
    assert_settled(&storage).await;
    relays.iter().for_each(Running::assert_alive);
    assert!(charges.store_failures.load(Ordering::Relaxed) > 0, "the relays noticed");
    charges.assert_none();
    collector.assert_everything_arrived(&ledger);
    collector.assert_ordered();
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_killed_and_restarted_while_relays_run() {
    let server = RedisServer::start().unwrap();
    let node = Arc::new(tokio::task::spawn_blocking(|| RabbitMqNode::start().unwrap()).await.unwrap());
    let storage = RedisStorage::open(&server.url()).await.unwrap();
    let (collector, charges) = (Collector::default(), Charges::default());
    let consumer = tokio::spawn(consume(node.url(), "orders", collector.clone()));
    eventually("the queue is there", Duration::from_secs(60), async || {
        let node = node.clone();
        let queues = tokio::task::spawn_blocking(move || node.control(&["list_queues", "--silent", "name"]));
        queues.await.unwrap().is_ok_and(|queues| queues.contains("orders"))
    })
    .await;
    let mut relays = Vec::new();
    for _ in 0..2 {
        let transport = RabbitMqTransport::open(&node.url()).await.unwrap();
        relays.push(spawn_relay(&storage, transport, &charges));
    }
    let victim = node.clone();
    let ledger = enqueue_while(&storage, kills(2), move || {
        std::thread::sleep(Duration::from_millis(300));
        victim.kill();
        std::thread::sleep(Duration::from_millis(300));
        victim.restart().unwrap();
    })
    .await;
    assert_settled(&storage).await;
    relays.iter().for_each(Running::assert_alive);
    eventually("the consumer has everything", Duration::from_secs(60), async || {
        collector.has_all_of(&ledger)
    })
    .await;
    consumer.abort();
    assert!(charges.paused.load(Ordering::Relaxed) > 0, "the relays noticed");
    charges.assert_none();
    collector.assert_everything_arrived(&ledger);
    collector.assert_ordered();
}
