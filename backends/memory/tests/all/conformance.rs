//! The in-memory storage under the suite of the testkit.

use pillarbox_core::{Enqueue, Message};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::time::Duration;

pillarbox_testkit::storage_suite!(
    #[test]
    block_on = futures_executor::block_on,
    harness = MemoryHarness
);

struct MemoryHarness;

struct MemoryStore {
    storage: MemoryStorage,
    clock: MemoryClock,
}

struct MemoryProducer(MemoryStorage);

impl StorageHarness for MemoryHarness {
    type Store = MemoryStore;

    fn abilities(&self) -> Abilities {
        // What is in memory was a message when it came, so nothing can be undecodable.
        Abilities { corrupt: false, ..Abilities::ALL }
    }

    async fn create(&self, settings: &OutboxSettings) -> Result<MemoryStore, BoxError> {
        let clock = MemoryClock::manual();
        let config = MemoryConfig::new(clock.clone())
            .head_policy(settings.head_policy)
            .max_strikes(settings.max_strikes)
            .keep_published(settings.keep_published);
        Ok(MemoryStore { storage: MemoryStorage::open(config)?, clock })
    }
}

impl TestStore for MemoryStore {
    type Storage = MemoryStorage;
    type Producer = MemoryProducer;

    async fn connect(&self) -> Result<MemoryStorage, BoxError> {
        Ok(self.storage.clone())
    }

    async fn producer(&self) -> Result<MemoryProducer, BoxError> {
        Ok(MemoryProducer(self.storage.clone()))
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.clock.advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        Err("nothing in memory can be corrupt".into())
    }
}

impl Producer for MemoryProducer {
    type Transaction = MemoryTransaction;

    async fn begin(&self) -> Result<MemoryTransaction, BoxError> {
        Ok(self.0.begin())
    }

    async fn enqueue(
        &self,
        transaction: &mut MemoryTransaction,
        messages: &[Message],
    ) -> Result<(), BoxError> {
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
