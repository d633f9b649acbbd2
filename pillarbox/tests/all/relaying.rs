//! The facade's own parts around a relay: timers, observers, registry.

use futures_executor::block_on;
use pillarbox::memory::MemoryStorage;
use pillarbox::{
    Admin as _, CountingObserver, Destination, Error, ErrorKind, Message, Observation, Observer, Observers,
    Outcomes, Relay, RelayConfig, Timer, Transport, TransportGuarantees,
};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Confirms everything.
struct Sink;

impl Transport for Sink {
    async fn publish(&self, _: &[Message], outcomes: &mut Outcomes) {
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// Relays 100 messages with `timer`, and stops when they are counted.
fn relays(timer: impl Timer) -> impl Future<Output = ()> {
    let outbox = MemoryStorage::new();
    let messages: Vec<_> = (0..100).map(|_| Message::to("orders.created").payload("{}").unwrap()).collect();
    outbox.enqueue_alone(&messages).unwrap();
    let counting = CountingObserver::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let observers = Observers::new().with(counting.clone()).with(Listener(heard.clone()));
    let relay = Relay::new(outbox.clone(), Sink, RelayConfig::default()).unwrap();
    async move {
        let settled = std::future::poll_fn(|_| {
            if counting.counts().settled == 100 {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        });
        relay.timer(timer).observer(observers).run(settled).await.unwrap();
        let counts = counting.counts();
        assert_eq!((counts.claimed, counts.confirmed, counts.settled), (100, 100, 100));
        assert_eq!((counts.failed, counts.retried, counts.buried, counts.fenced), (0, 0, 0, 0));
        assert_eq!(outbox.stats().await.unwrap().pending, 0);
        assert!(heard.lock().unwrap().iter().any(|name| name == "Settled"), "the second observer hears too");
    }
}

struct Listener(Arc<Mutex<Vec<String>>>);

impl Observer for Listener {
    fn observe(&self, observation: &Observation<'_>) {
        let text = format!("{observation:?}");
        let name = text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap();
        self.0.lock().unwrap().push(name.to_owned());
    }
}

async fn wakes_in_time(timer: impl Timer) {
    let begin = timer.now();
    timer.sleep_until(begin).await;
    let end = begin.after(Duration::from_millis(30));
    timer.sleep_until(end).await;
    assert!(timer.now() >= end);
    // Beyond the longest single sleep, so that it takes more than one.
    let end = timer.now().after(Duration::from_millis(1_050));
    timer.sleep_until(end).await;
    assert!(timer.now() >= end);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn with_the_timer_of_tokio() {
    wakes_in_time(pillarbox::TokioTimer::new()).await;
    relays(pillarbox::TokioTimer::new()).await;
}

#[cfg(feature = "futures-timer")]
#[test]
fn with_the_timer_that_needs_no_runtime() {
    block_on(wakes_in_time(pillarbox::FuturesTimer::new()));
    block_on(relays(pillarbox::FuturesTimer::new()));
}

#[test]
fn the_registry_opens_what_is_enabled_and_explains_the_rest() {
    let registry = pillarbox::registry();
    let opened = block_on(registry.open_storage("memory:")).unwrap();
    let message = Message::to("orders.created").payload("{}").unwrap();
    block_on(opened.producer.enqueue_alone(&[message])).unwrap();
    let unknown = block_on(registry.storage("etcd://user:secret@host")).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Misconfigured);
    assert!(
        unknown.to_string().contains("`memory:`") && !format!("{unknown:?}").contains("secret"),
        "{unknown}"
    );
    #[cfg(not(feature = "redis"))]
    {
        let absent = block_on(registry.storage("redis://host")).unwrap_err().to_string();
        assert!(absent.contains("feature `redis`"), "{absent}");
    }
}
