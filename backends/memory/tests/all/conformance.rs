use pillarbox_core::{Message, Timestamp};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::time::Duration;

struct Memory;

struct Store(MemoryStorage);

impl StorageHarness for Memory {
    type Store = Store;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    async fn create(&self, settings: &OutboxSettings) -> Result<Store, BoxError> {
        let config = MemoryConfig::with_clock(MemoryClock::manual(Timestamp::from_millis(1_700_000_000_000)))
            .head_policy(settings.head_policy)
            .max_strikes(settings.max_strikes)
            .keep_published(settings.keep_published);
        Ok(Store(MemoryStorage::open(config)?))
    }
}

impl TestStore for Store {
    type Storage = MemoryStorage;
    type Producer = InTransactions;

    async fn connect(&self) -> Result<MemoryStorage, BoxError> {
        Ok(self.0.clone())
    }

    async fn producer(&self) -> Result<InTransactions, BoxError> {
        Ok(InTransactions(self.0.clone()))
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.0.clock().advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        self.0.enqueue_undecodable(&b"\xff no message"[..], "it has no length");
        Ok(())
    }
}

struct InTransactions(MemoryStorage);

impl Producer for InTransactions {
    type Transaction = MemoryTransaction;

    async fn begin(&self) -> Result<MemoryTransaction, BoxError> {
        Ok(self.0.transaction())
    }

    async fn enqueue(
        &self,
        transaction: &mut MemoryTransaction,
        messages: &[Message],
    ) -> Result<(), BoxError> {
        Ok(pillarbox_core::Enqueue::enqueue(&self.0, transaction, messages).await?)
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

pillarbox_testkit::storage_suite!(
    #[test]
    block_on = futures_executor::block_on,
    harness = Memory
);
pillarbox_testkit::property_suite!(
    #[test]
    block_on = futures_executor::block_on,
    harness = Memory
);
