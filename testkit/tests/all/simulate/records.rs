//! A storage over compare-and-swap whose calls take several steps: reading, thinking, writing.

use pillarbox_core::{
    Admin, Affected, BoxFuture, Change, Command, Due, Error, ErrorKind, Filter, HeadPolicy, Listing, Loaded,
    Message, MessageId, Nonce, Order, Page, RecordStorage, Records, RepeatedIds, State, Stats,
    StorageGuarantees, Stored, StoredRecord, Wakeup, step,
};
use pillarbox_testkit::simulate::{Look, Setup, Subject};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long a call thinks between what it reads and what it writes.
const THINKING: Duration = Duration::from_micros(700);

/// Lists of records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists;

impl Subject for Lists {
    type Storage = Arc<Records<List>>;
    type Transaction = (Vec<Message>, List);

    fn open(&self, setup: Setup) -> Self::Storage {
        let guarantees = StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: setup.head_policy,
            max_strikes: setup.max_strikes,
            max_run: setup.max_run,
        };
        Arc::new(Records(List { records: Arc::default(), next: Arc::default(), guarantees, setup }))
    }

    fn begin(&self, storage: &Self::Storage) -> Self::Transaction {
        (Vec::new(), storage.0.clone())
    }

    fn enqueue(&self, (transaction, _): &mut Self::Transaction, messages: &[Message]) {
        transaction.extend_from_slice(messages);
    }

    fn commit(&self, (transaction, list): Self::Transaction) {
        let now = (list.setup.clock)();
        let mut records = list.lock();
        for message in transaction {
            let position = list.next.fetch_add(1, Ordering::Relaxed);
            records.push(StoredRecord::new(position, message, now));
        }
    }

    fn rollback(&self, _: Self::Transaction) {}

    fn look(&self, storage: &Self::Storage) -> Look {
        let records = storage.0.lock();
        let dead = records.iter().filter(|stored| stored.record.state == State::Dead);
        let dead: Vec<MessageId> = dead.filter_map(id).collect();
        Look { remaining: (records.len() - dead.len()) as u64, dead }
    }
}

#[derive(Clone)]
pub(super) struct List {
    records: Arc<Mutex<Vec<StoredRecord>>>,
    /// Positions are never given twice: tokens are made of them.
    next: Arc<AtomicU64>,
    guarantees: StorageGuarantees,
    setup: Setup,
}

impl List {
    fn lock(&self) -> MutexGuard<'_, Vec<StoredRecord>> {
        self.records.lock().unwrap()
    }

    async fn think(&self) {
        (self.setup.sleep)(THINKING).await;
    }
}

fn id(stored: &StoredRecord) -> Option<MessageId> {
    match &stored.content {
        pillarbox_core::Content::Message(message) => Some(message.id()),
        pillarbox_core::Content::Undecodable(_) => None,
    }
}

impl RecordStorage for List {
    fn guarantees(&self) -> StorageGuarantees {
        self.guarantees
    }

    async fn load_due(&self, limit: u32) -> Result<Due, Error> {
        let due = Due::select(self.lock().iter(), (self.setup.clock)(), limit, self.guarantees.head_policy);
        self.think().await;
        Ok(due)
    }

    async fn load_claimed(&self, nonce: Nonce) -> Result<Loaded, Error> {
        let records = self.lock().iter().filter(|stored| stored.carries(nonce)).cloned().collect();
        let loaded = Loaded { now: (self.setup.clock)(), records };
        self.think().await;
        Ok(loaded)
    }

    async fn compare_and_swap(&self, changes: &[Change]) -> Result<bool, Error> {
        let mut records = self.lock();
        let mut places = Vec::with_capacity(changes.len());
        for change in changes {
            match records.binary_search_by_key(&change.position, |stored| stored.position) {
                Ok(place) if records[place].record == change.expected => places.push(place),
                _ => return Ok(false),
            }
        }
        for (change, place) in changes.iter().zip(places) {
            records[place].record = change.record;
        }
        records.retain(|stored| stored.record.state != State::Published);
        Ok(true)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl List {
    /// What is dead and matches is redriven or removed.
    fn mend(&self, filter: &Filter, command: &Command<'_>) -> Affected {
        let now = (self.setup.clock)();
        let mut records = self.lock();
        let wanted = |stored: &StoredRecord| {
            stored.record.state == State::Dead && id(stored).is_some_and(|id| filter.ids.contains(&id))
        };
        let mut count = 0;
        while let Some(place) = records.iter().position(wanted) {
            count += 1;
            let after = step(&records[place].record, command, now, self.guarantees.max_strikes).unwrap();
            match after.record() {
                None => drop(records.remove(place)),
                Some(record) if self.guarantees.head_policy == HeadPolicy::Block => {
                    records[place].record = *record;
                }
                Some(record) => {
                    // It counts as new.
                    let mut stored = records.remove(place);
                    stored.record = *record;
                    stored.position = self.next.fetch_add(1, Ordering::Relaxed);
                    records.push(stored);
                }
            }
        }
        Affected { count, more: false }
    }
}

/// Only what the simulated operator asks for.
impl Admin for List {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(async { Err(unasked()) })
    }

    fn list(&self, _: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async { Err(unasked()) })
    }

    fn get(&self, _: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(async { Err(unasked()) })
    }

    fn redrive(&self, filter: Filter, _: u32, _: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { Ok(self.mend(&filter, &Command::Redrive)) })
    }

    fn discard(&self, filter: Filter, _: u32, _: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { Ok(self.mend(&filter, &Command::Discard)) })
    }

    fn purge_published(&self, _: Duration, _: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async { Ok(0) })
    }
}

fn unasked() -> Error {
    Error::new(ErrorKind::Unavailable, "look").describe("the simulated operator does not ask this")
}
