//! What the project promises, shown on real servers: stores and brokers are killed, relays die, hints are dropped.

mod consumer;
mod deadly;
mod hints;
mod killed;
mod outages;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;

use pillarbox::{Destination, Error, Message, MessageId, Outcomes, Transport, TransportGuarantees};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A message that carries its number, on one of `keys` ordering keys; 0 is none.
fn numbered(number: u32, keys: u32) -> Message {
    let builder = Message::to("orders");
    let builder = if keys > 0 { builder.key(format!("order-{}", number % keys)) } else { builder };
    builder.payload(number.to_string()).unwrap()
}

fn number_of(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// What arrived at the receiver, in order, with the time of arrival.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Vec<Arrival>>>);

#[derive(Clone, Debug)]
struct Arrival {
    id: MessageId,
    number: u32,
    key: Option<String>,
    at: Instant,
}

impl Collector {
    fn deliver(&self, id: MessageId, key: Option<&str>, payload: &[u8]) {
        let arrival =
            Arrival { id, number: number_of(payload), key: key.map(str::to_owned), at: Instant::now() };
        self.0.lock().unwrap().push(arrival);
    }

    fn arrivals(&self) -> Vec<Arrival> {
        self.0.lock().unwrap().clone()
    }

    fn distinct(&self) -> usize {
        self.0.lock().unwrap().iter().map(|arrival| arrival.id).collect::<HashSet<_>>().len()
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn has_all_of(&self, ledger: &Ledger) -> bool {
        let arrived: HashSet<_> = self.arrivals().iter().map(|arrival| arrival.id).collect();
        ledger.acknowledged.is_subset(&arrived)
    }

    /// Holds what arrived against what was enqueued, and prints the totals.
    fn assert_everything_arrived(&self, ledger: &Ledger) {
        let arrived: HashSet<_> = self.arrivals().iter().map(|arrival| arrival.id).collect();
        let Ledger { attempted, acknowledged } = ledger;
        let lost = acknowledged.difference(&arrived).count();
        let unexpected = arrived.difference(attempted).count();
        println!(
            "attempted {} acknowledged {} delivered {} duplicated {} recovered {} lost {lost} unexpected {unexpected}",
            attempted.len(),
            acknowledged.len(),
            arrived.len(),
            self.total() - arrived.len(),
            arrived.intersection(attempted).count() - acknowledged.intersection(&arrived).count(),
        );
        assert_eq!((lost, unexpected), (0, 0));
    }

    /// First deliveries of each key come in the order of their numbers.
    fn assert_ordered(&self) {
        let mut seen = HashSet::new();
        let mut last: HashMap<String, u32> = HashMap::new();
        for arrival in self.arrivals().into_iter().filter(|arrival| seen.insert(arrival.id)) {
            let Some(key) = arrival.key else { continue };
            if let Some(before) = last.insert(key.clone(), arrival.number) {
                assert!(before < arrival.number, "{key}: {} came after {before}", arrival.number);
            }
        }
    }
}

/// What was enqueued, and what of it the store has acknowledged.
#[derive(Debug, Default)]
struct Ledger {
    attempted: HashSet<MessageId>,
    acknowledged: HashSet<MessageId>,
}

impl Ledger {
    fn record(&mut self, id: MessageId, acknowledged: bool) {
        self.attempted.insert(id);
        if acknowledged {
            self.acknowledged.insert(id);
        }
    }
}

impl Transport for Collector {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for message in batch {
            self.deliver(message.id(), message.key().map(|key| &**key), message.payload());
        }
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// Looks again and again until it is so. Generous: a slow machine is no failure.
async fn eventually(what: &str, limit: Duration, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a future on the runtime until it is dropped: dropping it is a crash.
struct Running(tokio::task::JoinHandle<()>);

impl Running {
    fn spawn(future: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        Self(tokio::spawn(async { future.await.unwrap() }))
    }

    fn assert_alive(&self) {
        assert!(!self.0.is_finished(), "the relay has ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
