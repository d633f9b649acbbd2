//! The suite that every storage passes, on each database.

use crate::support;
use pillarbox_core::{Enqueue, Message, TestClock};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use sqlx::{Pool, Transaction};
use std::time::Duration;

/// An outbox of one case, and what has to live as long.
struct Store<D: Dialect, Guard> {
    config: SqlConfig<D>,
    clock: TestClock,
    /// A row that is no message.
    corruption: &'static str,
    _guard: Guard,
}

impl<D: Dialect, Guard> Store<D, Guard> {
    async fn create(config: SqlConfig<D>, corruption: &'static str, guard: Guard) -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let config = config.test_clock(clock.clone()).max_connections(3);
        SqlStorage::migrate(&config).await?;
        Ok(Self { config, clock, corruption, _guard: guard })
    }
}

impl<D: Dialect, Guard> TestStore for Store<D, Guard>
where
    SqlStorage<D>: for<'t> Enqueue<Transaction<'t, D>>,
{
    type Storage = SqlStorage<D>;
    type Producer = Transactions<D>;

    async fn connect(&self) -> Result<SqlStorage<D>, BoxError> {
        Ok(SqlStorage::connect(self.config.clone()).await?)
    }

    async fn producer(&self) -> Result<Transactions<D>, BoxError> {
        let outbox = self.connect().await?;
        Ok(Transactions { pool: outbox.pool().clone(), outbox })
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.clock.advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        let outbox = self.connect().await?;
        Ok(D::script(&mut *outbox.pool().acquire().await?, self.corruption.to_owned()).await?)
    }
}

/// The transactions of applications.
struct Transactions<D: Dialect> {
    outbox: SqlStorage<D>,
    pool: Pool<D>,
}

impl<D: Dialect> Producer for Transactions<D>
where
    SqlStorage<D>: for<'t> Enqueue<Transaction<'t, D>>,
{
    type Transaction = Transaction<'static, D>;

    async fn begin(&self) -> Result<Transaction<'static, D>, BoxError> {
        Ok(self.pool.begin().await?)
    }

    async fn enqueue(
        &self,
        transaction: &mut Transaction<'static, D>,
        messages: &[Message],
    ) -> Result<(), BoxError> {
        Ok(self.outbox.enqueue(transaction, messages).await?)
    }

    async fn commit(&self, transaction: Transaction<'static, D>) -> Result<(), BoxError> {
        Ok(transaction.commit().await?)
    }

    async fn rollback(&self, transaction: Transaction<'static, D>) -> Result<(), BoxError> {
        Ok(transaction.rollback().await?)
    }
}

mod sqlite {
    use super::{Abilities, BoxError, OutboxSettings, StorageHarness, Store, support};
    use sqlx::Sqlite;
    use tempfile::TempDir;

    struct Files;

    impl StorageHarness for Files {
        type Store = Store<Sqlite, TempDir>;

        fn abilities(&self) -> Abilities {
            // SQLite has one writer at a time.
            Abilities { concurrent_transactions: false, ..Abilities::ALL }
        }

        async fn create(&self, settings: &OutboxSettings) -> Result<Self::Store, BoxError> {
            let (folder, config) = support::sqlite(settings);
            let corruption =
                "INSERT INTO pillarbox_message (id, topic, payload) VALUES (x'01', 'suite.topic', x'ff')";
            Store::create(config, corruption, folder).await
        }
    }

    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Files);
}
