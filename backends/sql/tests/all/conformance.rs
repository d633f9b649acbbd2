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
    _guard: Guard,
}

impl<D: Dialect, Guard> Store<D, Guard> {
    async fn create(config: SqlConfig<D>, guard: Guard) -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let config = config.test_clock(clock.clone()).max_connections(3);
        SqlStorage::migrate(&config).await?;
        Ok(Self { config, clock, _guard: guard })
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
        // Without a topic, as a program in another language might write it.
        let id = if D::NUMBERED {
            "'00000000-0000-0000-0000-000000000001'"
        } else {
            "x'00000000000000000000000000000001'"
        };
        let payload = if D::NUMBERED { "'\\xff'" } else { "x'ff'" };
        let name = outbox.name();
        let sql = format!("INSERT INTO {name}_message (id, topic, payload) VALUES ({id}, '', {payload})");
        Ok(D::script(&mut *outbox.pool().acquire().await?, sql).await?)
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
            Store::create(config, folder).await
        }
    }

    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Files);
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Files
    );
}

mod postgres {
    use super::{Abilities, BoxError, OutboxSettings, StorageHarness, Store, support};
    use sqlx::Postgres;

    struct Tables;

    impl StorageHarness for Tables {
        type Store = Store<Postgres, ()>;

        fn abilities(&self) -> Abilities {
            Abilities::ALL
        }

        async fn create(&self, settings: &OutboxSettings) -> Result<Self::Store, BoxError> {
            Store::create(support::postgres(settings), ()).await
        }
    }

    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Tables);
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Tables
    );
}

mod mariadb {
    use super::{Abilities, BoxError, OutboxSettings, StorageHarness, Store, support};
    use sqlx::MySql;

    struct Tables;

    impl StorageHarness for Tables {
        type Store = Store<MySql, ()>;

        fn abilities(&self) -> Abilities {
            // MySQL cannot tell of a commit.
            Abilities { wakeup: false, ..Abilities::ALL }
        }

        async fn create(&self, settings: &OutboxSettings) -> Result<Self::Store, BoxError> {
            Store::create(support::mariadb(settings), ()).await
        }
    }

    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Tables);
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Tables
    );
}

/// Runs one sequence of the property test to its end, on a runtime of its own, as every other case has one.
fn on_tokio<F: Future>(sequence: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sequence)
}
