//! The proof: how the suite opens the storage, moves its clock and uses its transactions.

use super::*;
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
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
    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.1.fetch_add(i64::try_from(by.as_micros())?, SeqCst);
        Ok(())
    }
}

impl Producer for ListStorage {
    type Transaction = Vec<Message>;
    async fn begin(&self) -> Result<Vec<Message>, BoxError> {
        Ok(Vec::new())
    }
    async fn enqueue(&self, transaction: &mut Vec<Message>, messages: &[Message]) -> Result<(), BoxError> {
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
