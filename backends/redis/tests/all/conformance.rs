//! The suite that every storage passes.

use crate::support::{connection, fresh_name, server};
use pillarbox_core::{Limits, Message, TestClock};
use pillarbox_redis::{RedisConfig, RedisStorage};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::time::Duration;

struct Redis {
    lanes: u16,
}

struct Store {
    config: RedisConfig,
    name: String,
    clock: TestClock,
}

impl StorageHarness for Redis {
    type Store = Store;

    fn abilities(&self) -> Abilities {
        Abilities { retention: false, ..Abilities::ALL }
    }

    async fn create(&self, settings: &OutboxSettings) -> Result<Store, BoxError> {
        let (name, clock) = (fresh_name(), TestClock::new());
        let config = RedisConfig::from_url(&server().url())?
            .name(&name)
            .lanes(self.lanes)
            .limits(Limits::default())
            .head_policy(settings.head_policy)
            .max_strikes(settings.max_strikes)
            .test_clock(clock.clone());
        Ok(Store { config, name, clock })
    }
}

impl TestStore for Store {
    type Storage = RedisStorage;
    type Producer = Pipelines;

    async fn connect(&self) -> Result<RedisStorage, BoxError> {
        Ok(RedisStorage::connect(self.config.clone()).await?)
    }

    async fn producer(&self) -> Result<Pipelines, BoxError> {
        Ok(Pipelines { outbox: self.connect().await?, connection: connection(server()).await })
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.clock.advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        let list = format!("{{{}}}:lane:0", self.name);
        let push = redis::cmd("RPUSH").arg(list).arg(&b"\xff no message"[..]).to_owned();
        push.exec_async(&mut connection(server()).await).await?;
        Ok(())
    }
}

/// The transactions of applications: pipelines with `MULTI`.
struct Pipelines {
    outbox: RedisStorage,
    connection: redis::aio::MultiplexedConnection,
}

impl Producer for Pipelines {
    type Transaction = redis::Pipeline;

    async fn begin(&self) -> Result<redis::Pipeline, BoxError> {
        let mut transaction = redis::pipe();
        transaction.atomic();
        Ok(transaction)
    }

    async fn enqueue(&self, transaction: &mut redis::Pipeline, messages: &[Message]) -> Result<(), BoxError> {
        Ok(pillarbox_core::Enqueue::enqueue(&self.outbox, transaction, messages).await?)
    }

    async fn commit(&self, transaction: redis::Pipeline) -> Result<(), BoxError> {
        Ok(transaction.exec_async(&mut self.connection.clone()).await?)
    }

    async fn rollback(&self, transaction: redis::Pipeline) -> Result<(), BoxError> {
        drop(transaction);
        Ok(())
    }
}

/// Runs one sequence of the property test to its end, on a runtime of its own, as every other case has one.
fn on_tokio<F: Future>(sequence: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sequence)
}

mod with_many_lanes {
    use super::Redis;
    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Redis { lanes: 32 });
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Redis { lanes: 32 }
    );
}

/// Where every key shares its lane with every other.
mod with_one_lane {
    use super::Redis;
    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Redis { lanes: 1 });
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Redis { lanes: 1 }
    );
}
