//! A storage of one's own, whole: a list of records behind a lock. `Records` makes a storage of it, and it passes every case
//! of the suite: `cargo test -p pillarbox --example custom_storage`.

use pillarbox::{
    Admin, Change, Due, Enqueue, Error, HeadPolicy, Limits, Loaded, Message, Nonce, Order, RecordStorage,
    Records, RepeatedIds, State, StorageGuarantees, StoredRecord, Timestamp, Wakeup,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The list; clones are handles on the same one.
#[derive(Clone)]
struct ListStorage {
    records: Arc<Mutex<Vec<StoredRecord>>>,
    guarantees: StorageGuarantees,
    now: Clock,
}

/// The store's clock.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl ListStorage {
    fn new(head_policy: HeadPolicy, max_strikes: u32, now: Clock) -> Self {
        let (order, repeated_ids) = (Order::CommitOrdered, RepeatedIds::SecondCopy);
        let guarantees =
            StorageGuarantees { order, repeated_ids, head_policy, max_strikes, max_run: u32::MAX };
        Self { records: Arc::default(), guarantees, now }
    }

    /// A transaction is a list of messages here; committing it is this.
    fn commit(&self, transaction: Vec<Message>) {
        let now = (self.now)();
        let mut records = self.lock();
        for message in transaction {
            let position = records.last().map_or(0, |last| last.position + 1);
            records.push(StoredRecord::new(position, message, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StoredRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordStorage for ListStorage {
    fn guarantees(&self) -> StorageGuarantees {
        self.guarantees
    }

    async fn load_due(&self, limit: u32) -> Result<Due, Error> {
        Ok(Due::select(self.lock().iter(), (self.now)(), limit, self.guarantees.head_policy))
    }

    async fn load_claimed(&self, nonce: Nonce) -> Result<Loaded, Error> {
        let records = self.lock();
        let carrying = records.iter().filter(|stored| stored.carries(nonce));
        Ok(Loaded { now: (self.now)(), records: carrying.cloned().collect() })
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
        None
    }
}

impl Enqueue<Vec<Message>> for ListStorage {
    async fn enqueue(&self, transaction: &mut Vec<Message>, messages: &[Message]) -> Result<(), Error> {
        messages.iter().try_for_each(|message| Limits::default().check(message))?;
        transaction.extend_from_slice(messages);
        Ok(())
    }
}

fn main() {}

#[cfg(test)]
mod proof {
    use super::*;
    use pillarbox_testkit::storage::{
        Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore,
    };
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Harness);
    struct Harness;
    struct Proved(ListStorage, Arc<AtomicI64>);
    impl StorageHarness for Harness {
        type Store = Proved;
        fn abilities(&self) -> Abilities {
            Abilities { concurrent_transactions: true, ..Abilities::NONE }
        }
        async fn create(&self, settings: &OutboxSettings) -> Result<Proved, BoxError> {
            let clock = Arc::new(AtomicI64::new(0));
            let shown = clock.clone();
            let now = Arc::new(move || Timestamp::from_micros(shown.load(SeqCst)));
            Ok(Proved(ListStorage::new(settings.head_policy, settings.max_strikes, now), clock))
        }
    }
    impl TestStore for Proved {
        type Storage = Records<ListStorage>;
        type Producer = ListStorage;
        async fn connect(&self) -> Result<Records<ListStorage>, BoxError> {
            Ok(Records(self.0.clone()))
        }
        async fn producer(&self) -> Result<ListStorage, BoxError> {
            Ok(self.0.clone())
        }
        async fn advance(&self, by: std::time::Duration) -> Result<(), BoxError> {
            self.1.fetch_add(i64::try_from(by.as_micros())?, SeqCst);
            Ok(())
        }
    }
    impl Producer for ListStorage {
        type Transaction = Vec<Message>;
        async fn begin(&self) -> Result<Vec<Message>, BoxError> {
            Ok(Vec::new())
        }
        async fn enqueue(
            &self,
            transaction: &mut Vec<Message>,
            messages: &[Message],
        ) -> Result<(), BoxError> {
            Ok(Enqueue::enqueue(self, transaction, messages).await?)
        }
        async fn commit(&self, transaction: Vec<Message>) -> Result<(), BoxError> {
            Self::commit(self, transaction);
            Ok(())
        }
        async fn rollback(&self, _: Vec<Message>) -> Result<(), BoxError> {
            Ok(())
        }
    }
}
