use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// A broker within this process, which confirms at once, counts, and refuses some.
///
/// Of one key, what stands behind a refused message in a batch is not accepted, as the relay may expect of a broker that keeps
/// the order of a key.
pub(crate) struct Broker {
    confirmed: AtomicU64,
    sent: AtomicU64,
    wanted: u64,
    /// Each so many sends one is refused; zero is none.
    refuses_each: u64,
    done: watch::Sender<bool>,
    last: watch::Sender<Instant>,
}

impl Broker {
    /// Ends after `wanted` confirmed messages, and refuses so many of 100 sends.
    pub(crate) fn new(wanted: u64, failing_percent: u32) -> Self {
        let refuses_each = if failing_percent == 0 { 0 } else { 100 / u64::from(failing_percent) };
        let (confirmed, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let (done, last) = (watch::Sender::new(wanted == 0), watch::Sender::new(Instant::now()));
        Self { confirmed, sent, wanted, refuses_each, done, last }
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Changes to true with the last message.
    pub(crate) fn done(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }

    /// Changes with every publish, to the time at which it came in.
    pub(crate) fn arrivals(&self) -> watch::Receiver<Instant> {
        self.last.subscribe()
    }

    /// Refuses what has its turn; answers how many were confirmed.
    fn take_some(&self, batch: &[Message], outcomes: &mut Outcomes) -> u64 {
        let mut refused_keys = HashSet::new();
        let mut confirmed = 0;
        for (place, message) in batch.iter().enumerate() {
            if message.key().is_some_and(|key| refused_keys.contains(key)) {
                outcomes.set(place, Err(refusal()));
                continue;
            }
            if self.sent.fetch_add(1, Ordering::Relaxed) % self.refuses_each == self.refuses_each - 1 {
                refused_keys.extend(message.key());
                outcomes.set(place, Err(refusal()));
                continue;
            }
            outcomes.set(place, Ok(()));
            confirmed += 1;
        }
        confirmed
    }
}

fn refusal() -> Error {
    Error::new(ErrorKind::Unroutable, "publish").describe("this one is refused")
}

impl Transport for Broker {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let confirmed = if self.refuses_each == 0 {
            outcomes.fill(|| Ok(()));
            batch.len() as u64
        } else {
            self.take_some(batch, outcomes)
        };
        self.last.send_replace(Instant::now());
        if self.confirmed.fetch_add(confirmed, Ordering::Relaxed) + confirmed >= self.wanted {
            self.done.send_replace(true);
        }
    }

    async fn probe(&self, _destination: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _destination: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}
