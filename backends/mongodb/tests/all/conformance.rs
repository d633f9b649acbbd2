//! The suite that every storage passes.

use crate::support::{SHOP, client, fresh_name, server};
use mongodb::bson::{Document, Timestamp as Seq, doc};
use mongodb::{Client, ClientSession};
use pillarbox_core::{Limits, Message, TestClock};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::time::Duration;

struct Mongo {
    lanes: u16,
}

struct Store {
    config: MongoConfig,
    name: String,
    clock: TestClock,
}

impl StorageHarness for Mongo {
    type Store = Store;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    async fn create(&self, settings: &OutboxSettings) -> Result<Store, BoxError> {
        let (name, clock) = (fresh_name(), TestClock::new());
        let config = MongoConfig::from_url(&server().url(SHOP))?
            .name(&name)
            .lanes(self.lanes)
            .limits(Limits::default())
            .head_policy(settings.head_policy)
            .max_strikes(settings.max_strikes)
            .keep_published(settings.keep_published)
            // Many tests share one small machine.
            .response_timeout(Duration::from_secs(60))
            .test_clock(clock.clone());
        MongoStorage::create(config.clone()).await?;
        Ok(Store { config, name, clock })
    }
}

impl TestStore for Store {
    type Storage = MongoStorage;
    type Producer = Sessions;

    async fn connect(&self) -> Result<MongoStorage, BoxError> {
        Ok(MongoStorage::connect(self.config.clone()).await?)
    }

    async fn producer(&self) -> Result<Sessions, BoxError> {
        Ok(Sessions { outbox: self.connect().await?, client: client(server()).await })
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.clock.advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        let messages =
            client(server()).await.database(SHOP).collection::<Document>(&format!("{}.messages", self.name));
        let seq = Seq { time: 0, increment: 0 };
        messages.insert_one(doc! { "lane": 0, "at": 0_i64, "seq": seq, "topic": 17 }).await?;
        Ok(())
    }
}

/// The transactions of applications: sessions of their own client.
struct Sessions {
    outbox: MongoStorage,
    client: Client,
}

impl Producer for Sessions {
    type Transaction = ClientSession;

    async fn begin(&self) -> Result<ClientSession, BoxError> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        Ok(session)
    }

    async fn enqueue(&self, transaction: &mut ClientSession, messages: &[Message]) -> Result<(), BoxError> {
        Ok(pillarbox_core::Enqueue::enqueue(&self.outbox, transaction, messages).await?)
    }

    async fn commit(&self, mut transaction: ClientSession) -> Result<(), BoxError> {
        Ok(transaction.commit_transaction().await?)
    }

    async fn rollback(&self, mut transaction: ClientSession) -> Result<(), BoxError> {
        Ok(transaction.abort_transaction().await?)
    }
}

/// Runs one sequence of the property test to its end, on a runtime of its own, as every other case has one.
fn on_tokio<F: Future>(sequence: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sequence)
}

mod with_many_lanes {
    use super::Mongo;
    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Mongo { lanes: 32 });
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Mongo { lanes: 32 }
    );
}

/// Where every key shares its lane with every other.
mod with_one_lane {
    use super::Mongo;
    pillarbox_testkit::storage_suite!(#[tokio::test] async harness = Mongo { lanes: 1 });
    pillarbox_testkit::property_suite!(
        #[test]
        block_on = super::on_tokio,
        harness = Mongo { lanes: 1 }
    );
}
