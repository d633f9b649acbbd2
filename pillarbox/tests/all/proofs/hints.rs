//! How long a message takes from its commit to the transport of an idle relay.

use super::{Collector, Running, eventually, numbered};
use pillarbox::redis::RedisStorage;
use pillarbox::{
    Admin, AnyStorage, Claim, Claimed, EnqueueAlone, Error, Relay, RelayConfig, Renewed, Settled,
    Settlements, Storage, StorageGuarantees, Token, TokioTimer, Wakeup,
};
use pillarbox_testkit::servers::RedisServer;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// A store whose every hint is lost.
struct Deaf(AnyStorage);

impl Storage for Deaf {
    fn guarantees(&self) -> StorageGuarantees {
        self.0.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.0.claim(claim).await
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        self.0.renew(tokens, lease).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        self.0.settle(settlements).await
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.0.admin()
    }
}

/// The times from commit to arrival, shortest first, of messages that come one by one to an idle relay.
async fn latencies(
    storage: impl Storage + 'static,
    producer: &impl EnqueueAlone,
    count: u32,
) -> Vec<Duration> {
    let collector = Collector::default();
    let config = RelayConfig::default().polling_interval(INTERVAL);
    let relay = Relay::new(storage, collector.clone(), config).unwrap().timer(TokioTimer::new());
    let _relay = Running::spawn(relay.run(std::future::pending()));
    let mut latencies = Vec::new();
    for number in 0..count {
        producer.enqueue_alone(&[numbered(number, 0)]).await.unwrap();
        let committed = Instant::now();
        eventually("the message arrives", Duration::from_secs(20), async || {
            collector.total() > number as usize
        })
        .await;
        latencies.push(collector.arrivals()[number as usize].at.saturating_duration_since(committed));
    }
    latencies.sort();
    latencies
}

/// A wide margin under the polling interval: with hints the median is well below a millisecond or two, without them it is
/// about half of the interval.
#[tokio::test(flavor = "multi_thread")]
async fn a_hint_wakes_an_idle_relay() {
    let server = RedisServer::start().unwrap();
    let storage = RedisStorage::open(&server.url()).await.unwrap();
    let latencies = latencies(storage.clone(), &storage, 101).await;
    let (median, slowest) = (latencies[50], latencies[100]);
    println!("from commit to transport: median {median:?}, slowest {slowest:?}");
    assert!(median < INTERVAL / 20, "median {median:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_single_hint_the_polling_interval_is_the_floor() {
    let server = RedisServer::start().unwrap();
    let storage = RedisStorage::open(&server.url()).await.unwrap();
    let latencies = latencies(Deaf(AnyStorage::new(storage.clone())), &storage, 5).await;
    println!("without hints: {latencies:?}");
    // Within the interval, and a margin for a machine that is busy.
    assert!(latencies.iter().all(|latency| *latency < INTERVAL * 2), "{latencies:?}");
}

#[cfg(feature = "mongodb")]
mod mongodb {
    use super::{Duration, INTERVAL, latencies};
    use pillarbox::mongodb::MongoStorage;
    use pillarbox_testkit::servers::MongoServer;

    /// With a change stream the median is a few milliseconds, most of it the commit that the majority confirms.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_wakes_an_idle_relay() {
        let server = MongoServer::start().unwrap();
        let storage = MongoStorage::open(&server.url("shop")).await.unwrap();
        let latencies = latencies(storage.clone(), &storage, 101).await;
        let (median, slowest) = (latencies[50], latencies[100]);
        println!("from commit to transport, by change stream: median {median:?}, slowest {slowest:?}");
        assert!(median < INTERVAL / 5, "median {median:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_change_streams_the_polling_interval_is_the_floor() {
        let server = MongoServer::start_with(&["--setParameter", "enableTestCommands=1"]).unwrap();
        let storage = MongoStorage::open(&server.url("shop")).await.unwrap();
        let refused = bson::doc! {
            "configureFailPoint": "failCommand", "mode": "alwaysOn",
            "data": { "failCommands": ["aggregate"], "namespace": "shop.outbox.messages", "errorCode": 40_573 },
        };
        server.command(&refused).unwrap();
        let latencies = latencies(storage.clone(), &storage, 5).await;
        println!("without change streams: {latencies:?}");
        // Within the interval, and a margin for a machine that is busy.
        assert!(
            latencies.iter().all(|latency| *latency < INTERVAL * 2 + Duration::from_secs(1)),
            "{latencies:?}"
        );
    }
}
