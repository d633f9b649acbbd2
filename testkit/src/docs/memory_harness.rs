use pillarbox_core::{Enqueue, Message, Timestamp};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::time::Duration;

struct MyHarness;
struct MyStore(MemoryStorage);
struct MyProducer(MemoryStorage);

impl StorageHarness for MyHarness {
    type Store = MyStore;

    fn abilities(&self) -> Abilities {
        Abilities { admin: true, wakeup: true, ..Abilities::NONE }
    }

    /// A fresh, empty outbox. A real store makes a database, a schema or a prefix of its own here.
    async fn create(&self, settings: &OutboxSettings) -> Result<MyStore, BoxError> {
        let clock = MemoryClock::manual(Timestamp::from_millis(1_700_000_000_000));
        let config = MemoryConfig::with_clock(clock)
            .head_policy(settings.head_policy)
            .max_strikes(settings.max_strikes)
            .keep_published(settings.keep_published);
        Ok(MyStore(MemoryStorage::open(config)?))
    }
}

impl TestStore for MyStore {
    type Storage = MemoryStorage;
    type Producer = MyProducer;

    /// A handle as another process would have it: with a connection of its own.
    async fn connect(&self) -> Result<MemoryStorage, BoxError> {
        Ok(self.0.clone())
    }

    async fn producer(&self) -> Result<MyProducer, BoxError> {
        Ok(MyProducer(self.0.clone()))
    }

    /// Moves the store's clock, so that no test waits for a lease.
    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.0.clock().advance(by);
        Ok(())
    }
}

/// What an application does: business data and messages in one transaction.
impl Producer for MyProducer {
    type Transaction = MemoryTransaction;

    async fn begin(&self) -> Result<MemoryTransaction, BoxError> {
        Ok(self.0.transaction())
    }

    async fn enqueue(&self, transaction: &mut MemoryTransaction, messages: &[Message]) -> Result<(), BoxError> {
        Ok(Enqueue::enqueue(&self.0, transaction, messages).await?)
    }

    async fn commit(&self, transaction: MemoryTransaction) -> Result<(), BoxError> {
        transaction.commit();
        Ok(())
    }

    async fn rollback(&self, transaction: MemoryTransaction) -> Result<(), BoxError> {
        transaction.rollback();
        Ok(())
    }
}
