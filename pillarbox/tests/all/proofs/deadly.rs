//! Among 500 messages is one that kills the relay which publishes it: it alone is buried, and the 499 are delivered.

use super::{Collector, eventually, number_of, numbered};
use pillarbox::memory::{MemoryClock, MemoryConfig, MemoryStorage};
use pillarbox::redis::{RedisConfig, RedisStorage};
use pillarbox::{
    Destination, Error, Filter, ListState, Listing, Message, Outcomes, Relay, RelayConfig, Storage,
    TestClock, Timestamp, TokioTimer, Transport, TransportGuarantees,
};
use pillarbox_testkit::servers::RedisServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const MESSAGES: u32 = 500;
const DEADLY: u32 = 311;
const LEASE: Duration = Duration::from_secs(30);

/// Delivers one message after the other, until the deadly one: then nothing more is answered, and the relay dies.
#[derive(Clone)]
struct Deadly {
    collector: Collector,
    kill: Arc<Notify>,
}

impl Transport for Deadly {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for (index, message) in batch.iter().enumerate() {
            if number_of(message.payload()) == DEADLY {
                self.kill.notify_one();
                std::future::pending::<()>().await;
            }
            self.collector.deliver(message.id(), message.key().map(|key| &**key), message.payload());
            outcomes.set(index, Ok(()));
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// Restarts a relay as often as it dies, and counts.
async fn deaths_until_everything_is_settled<S>(
    storage: S,
    collector: &Collector,
    advance: impl Fn(Duration),
) -> u32
where
    S: Storage + Clone + 'static,
{
    let mut deaths = 0;
    loop {
        let kill = Arc::new(Notify::new());
        let transport = Deadly { collector: collector.clone(), kill: kill.clone() };
        let config = RelayConfig::default().batch_size(MESSAGES).lease(LEASE);
        let relay = Relay::new(storage.clone(), transport, config).unwrap().timer(TokioTimer::new());
        let admin = storage.admin().unwrap();
        let done = eventually("everything is settled", Duration::from_secs(60), async || {
            let stats = admin.stats().await.unwrap();
            stats.dead == 1 && stats.pending + stats.scheduled + stats.claimed == 0
        });
        tokio::select! {
            ended = relay.run(std::future::pending()) => panic!("the relay ended: {ended:?}"),
            () = kill.notified() => deaths += 1,
            () = done => return deaths,
        }
        advance(LEASE + Duration::from_secs(1));
    }
}

async fn prove<S: Storage + Clone + 'static>(storage: S, advance: impl Fn(Duration)) {
    let collector = Collector::default();
    let max_strikes = storage.guarantees().max_strikes;
    let deaths = deaths_until_everything_is_settled(storage.clone(), &collector, advance).await;
    let filter = Filter::all();
    let listing = Listing { state: ListState::Dead, filter, cursor: None, limit: 10 };
    let dead = storage.admin().unwrap().list(listing).await.unwrap().messages;
    assert_eq!(dead.len(), 1, "only the deadly one is buried");
    assert_eq!(number_of(dead[0].message().unwrap().payload()), DEADLY);
    assert_eq!(collector.distinct(), MESSAGES as usize - 1, "the others are delivered");
    let limit = MESSAGES.ilog2() + 1 + max_strikes;
    println!("{deaths} deaths, {} duplicates", collector.total() - collector.distinct());
    assert!(deaths <= limit, "{deaths} deaths; log2(run) + limit allows {limit}");
}

#[tokio::test]
async fn a_deadly_message_in_memory() {
    let clock = MemoryClock::manual(Timestamp::from_millis(1_700_000_000_000));
    let storage = MemoryStorage::open(MemoryConfig::with_clock(clock.clone())).unwrap();
    let messages: Vec<_> = (0..MESSAGES).map(|number| numbered(number, 0)).collect();
    storage.enqueue_alone(&messages).unwrap();
    prove(storage, |by| clock.advance(by)).await;
}

#[tokio::test]
async fn a_deadly_message_in_redis() {
    let server = RedisServer::start().unwrap();
    let clock = TestClock::new();
    let config = RedisConfig::from_url(&server.url()).unwrap().test_clock(clock.clone());
    let storage = RedisStorage::connect(config).await.unwrap();
    let messages: Vec<_> = (0..MESSAGES).map(|number| numbered(number, 0)).collect();
    storage.enqueue_alone(&messages).await.unwrap();
    prove(storage, |by| clock.advance(by)).await;
}
