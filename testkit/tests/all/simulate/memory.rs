//! The memory storage as a subject of the simulator: shared by the tests and the example.

use futures_util::FutureExt as _;
use pillarbox_core::{Admin as _, Filter, ListState, Listing, Message, Stored};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
use pillarbox_testkit::simulate::{Look, Setup, Subject};

/// The memory storage, as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory;

impl Subject for Memory {
    type Storage = MemoryStorage;
    type Transaction = MemoryTransaction;

    fn open(&self, setup: Setup) -> MemoryStorage {
        open(setup)
    }

    fn begin(&self, storage: &MemoryStorage) -> MemoryTransaction {
        storage.transaction()
    }

    fn enqueue(&self, transaction: &mut MemoryTransaction, messages: &[Message]) {
        transaction.append(messages).expect("the messages are within the limits");
    }

    fn commit(&self, transaction: MemoryTransaction) {
        transaction.commit();
    }

    fn rollback(&self, transaction: MemoryTransaction) {
        transaction.rollback();
    }

    fn look(&self, storage: &MemoryStorage) -> Look {
        look(storage)
    }
}

/// An outbox with these settings.
pub(crate) fn open(setup: Setup) -> MemoryStorage {
    let Setup { clock, head_policy, max_strikes, max_run, keep_published, .. } = setup;
    let config = MemoryConfig::with_clock(MemoryClock::from_source(move || clock()))
        .head_policy(head_policy)
        .max_strikes(max_strikes)
        .max_run(max_run)
        .keep_published(keep_published);
    MemoryStorage::open(config).expect("the settings are within their ranges")
}

/// What an outbox holds.
pub(crate) fn look(storage: &MemoryStorage) -> Look {
    let stats = storage.stats().now_or_never().expect("it answers at once").expect("it answers");
    let mut dead = Vec::new();
    if stats.dead > 0 {
        let listing = Listing { state: ListState::Dead, filter: Filter::all(), cursor: None, limit: 1_000 };
        let page = storage.list(listing).now_or_never().expect("it answers at once").expect("it answers");
        dead.extend(page.messages.iter().filter_map(Stored::id));
    }
    Look { remaining: stats.pending + stats.scheduled + stats.claimed, dead }
}
