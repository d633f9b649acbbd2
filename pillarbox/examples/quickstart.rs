//! An order service with an outbox, two relays, and one of them killed at the worst moment. Needs nothing installed.
//!
//! `cargo run --release -p pillarbox --example quickstart`

use pillarbox::memory::MemoryStorage;
use pillarbox::{
    Admin as _, Destination, Error, Message, Outcomes, Relay, RelayConfig, TokioTimer, Transport,
    TransportGuarantees,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

const ORDERS: u32 = 1_000;
const CUSTOMERS: u32 = 20;
/// Short, so that nobody has to wait for long. The default is 30 s, and a live relay renews its leases.
const LEASE: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let outbox = MemoryStorage::new();
    let orders = Arc::new(Mutex::new(BTreeMap::new()));

    println!("1. A service writes {ORDERS} orders. Each is written with its message in one transaction.");
    let mut committed = Vec::new();
    for number in 1..=ORDERS {
        let customer = format!("customer-{}", number % CUSTOMERS);
        let message = Message::to("orders.created").key(customer.clone()).payload(number.to_string())?;

        let mut transaction = outbox.transaction();
        let table = Arc::clone(&orders);
        transaction.stage(move || {
            table.lock().unwrap_or_else(PoisonError::into_inner).insert(number, customer);
        });
        transaction.append(std::slice::from_ref(&message))?;
        if number % 10 == 0 {
            transaction.rollback(); // say, the payment was refused
        } else {
            transaction.commit();
            committed.push(number);
        }
    }
    let (written, stored) = (orders.lock().map_or(0, |orders| orders.len()), outbox.stats().await?.pending);
    println!(
        "   Every tenth was rolled back, order and message: {written} orders and {stored} messages are stored."
    );

    println!("2. Relays A and B compete for the messages.");
    let broker = Broker::default();
    let config = RelayConfig::default().batch_size(20).lease(LEASE);
    let (stop, stopped) = watch::channel(false);
    let relay = |transport| Relay::new(outbox.clone(), transport, config.clone());
    let a = relay(Line { broker: broker.clone(), dies_after: None })?.timer(TokioTimer::new());
    let b = relay(Line { broker: broker.clone(), dies_after: Some(100) })?.timer(TokioTimer::new());
    let shutdown = |mut stopped: watch::Receiver<bool>| async move {
        // An error says that the sender is gone, which means the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let b = tokio::spawn(b.run(shutdown(stopped.clone())));
    let a = tokio::spawn(a.run(shutdown(stopped)));

    broker.worst_moment.notified().await;
    b.abort();
    println!("   B was killed: the broker had just taken some of its messages, and B could not report it.");
    println!("   A goes on. What B held is A's as soon as B's lease of {LEASE:?} has run out.");

    loop {
        let stats = outbox.stats().await?;
        if stats.pending + stats.scheduled + stats.claimed == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = stop.send(true);
    a.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;

    println!("3. The outbox is empty, and A has stopped.");
    let received = broker.received.lock().map_or_else(|_| Vec::new(), |received| received.clone());
    tell_totals(&committed, &received);
    Ok(())
}

fn tell_totals(committed: &[u32], received: &[u32]) {
    let mut deliveries: HashMap<u32, u32> = HashMap::new();
    let (mut first_deliveries, mut is_ordered) = (HashMap::new(), true);
    for number in received {
        let times = deliveries.entry(*number).or_default();
        *times += 1;
        if *times == 1 {
            let before = first_deliveries.insert(number % CUSTOMERS, *number);
            is_ordered &= before.is_none_or(|before| before < *number);
        }
    }
    let attempted = committed.len();
    let delivered = committed.iter().filter(|number| deliveries.contains_key(number)).count();
    let unexpected = deliveries.keys().filter(|number| !committed.contains(number)).count();
    let duplicated: u32 = deliveries.values().map(|times| times - 1).sum();
    let lost = attempted - delivered;
    println!("   Each customer's orders arrived in their order: {}.", if is_ordered { "yes" } else { "NO" });
    println!("   What B had sent was sent again, with the same ids: that is what \"at least once\" means.\n");
    // Nothing was indeterminate here, so nothing was recovered: every commit was answered.
    println!(
        "attempted {attempted} acknowledged {attempted} delivered {delivered} duplicated {duplicated} recovered 0 \
         lost {lost} unexpected {unexpected}"
    );
    assert!(is_ordered && lost == 0 && unexpected == 0, "a promise was broken");
}

/// Stands for a message broker: it keeps what it was sent.
#[derive(Clone, Default)]
struct Broker {
    received: Arc<Mutex<Vec<u32>>>,
    worst_moment: Arc<Notify>,
}

/// One relay's connection to the broker.
struct Line {
    broker: Broker,
    /// After the broker has so many messages, the line goes dead in the middle of a publish.
    dies_after: Option<usize>,
}

impl Transport for Line {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        tokio::time::sleep(Duration::from_millis(1)).await; // the way to the broker
        let total = {
            let Ok(mut received) = self.broker.received.lock() else { return };
            received.extend(
                batch
                    .iter()
                    .filter_map(|message| std::str::from_utf8(message.payload()).ok()?.parse::<u32>().ok()),
            );
            received.len()
        };
        if self.dies_after.is_some_and(|limit| total >= limit) {
            self.broker.worst_moment.notify_one();
            std::future::pending::<()>().await;
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
