use pillarbox_core::{Observation, Observer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what relays do: for progress bars, summaries and tests. Clones share their counts, so that one may observe several
/// relays and be asked meanwhile.
#[derive(Clone, Debug, Default)]
pub struct CountingObserver(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    claimed: AtomicU64,
    confirmed: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    buried: AtomicU64,
    released: AtomicU64,
    settled: AtomicU64,
    fenced: AtomicU64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that claims brought.
    pub claimed: u64,
    /// Messages that a broker confirmed.
    pub confirmed: u64,
    /// Messages that a broker did not confirm.
    pub failed: u64,
    /// Messages that are tried again later.
    pub retried: u64,
    /// Messages that were given up, by the relay or by the store.
    pub buried: u64,
    /// Messages that were given back untouched.
    pub released: u64,
    /// Messages that are published and settled for good.
    pub settled: u64,
    /// Leases that were lost to another relay.
    pub fenced: u64,
}

impl CountingObserver {
    /// Counts from zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts now. Each by itself is right; together they may be of slightly different moments.
    pub fn counts(&self) -> Counts {
        let Counters { claimed, confirmed, failed, retried, buried, released, settled, fenced } = &*self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            claimed: read(claimed),
            confirmed: read(confirmed),
            failed: read(failed),
            retried: read(retried),
            buried: read(buried),
            released: read(released),
            settled: read(settled),
            fenced: read(fenced),
        }
    }
}

impl Observer for CountingObserver {
    fn observe(&self, observation: &Observation<'_>) {
        let counters = &*self.0;
        let add = |counter: &AtomicU64, count: u32| {
            counter.fetch_add(u64::from(count), Ordering::Relaxed);
        };
        match *observation {
            Observation::Claimed { messages, buried, .. } => {
                add(&counters.claimed, messages);
                add(&counters.buried, buried);
            }
            Observation::Published { confirmed, failed, .. } => {
                add(&counters.confirmed, confirmed);
                add(&counters.failed, failed);
            }
            Observation::Retried { .. } => add(&counters.retried, 1),
            Observation::Buried { .. } => add(&counters.buried, 1),
            Observation::Released { messages } => add(&counters.released, messages),
            Observation::Settled { published, .. } => add(&counters.settled, published),
            Observation::Fenced { .. } => add(&counters.fenced, 1),
            _ => {}
        }
    }
}
