use crate::{BoxError, Subject};
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection, Database};
use pillarbox_core::{Enqueue as _, Message};
use pillarbox_mongodb::{MongoConfig, MongoStorage, layout};
use pillarbox_testkit::servers::MongoServer;
use std::time::Duration;

/// Measures the storage in MongoDB, on a replica set of one node. Everything is acknowledged by the majority, the floors too.
pub struct MongoBench {
    server: MongoServer,
    outbox: MongoStorage,
    client: Client,
    /// What the one consumer of the floor reads and deletes, who claims nothing.
    floor: Collection<RawDocumentBuf>,
}

impl MongoBench {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start() -> Result<Self, BoxError> {
        let server = MongoServer::start()?;
        let mut options = ClientOptions::parse(server.url("bench")).await?;
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options)?;
        let config = MongoConfig::from_url(&server.url("bench"))?.response_timeout(Duration::from_secs(60));
        let outbox = MongoStorage::connect(config).await?;
        let floor = client.database("bench").collection("floor");
        let bench = Self { server, outbox, client, floor };
        bench.client.database("bench").create_collection("business").await?;
        Ok(bench)
    }

    /// What a client opens.
    pub fn url(&self) -> String {
        self.server.url("bench")
    }

    fn business(&self) -> Collection<Document> {
        self.client.database("bench").collection("business")
    }

    /// An empty collection with the one index that its consumer needs.
    async fn empty_floor(&self) -> Result<Collection<RawDocumentBuf>, BoxError> {
        let database: Database = self.client.database("bench");
        database.collection::<Document>("floor").drop().await?;
        database.create_collection("floor").await?;
        let index = mongodb::IndexModel::builder().keys(doc! { "seq": 1 }).build();
        database.collection::<Document>("floor").create_index(index).await?;
        Ok(database.collection("floor"))
    }
}

impl Subject for MongoBench {
    type Storage = MongoStorage;

    fn name(&self) -> &'static str {
        "mongodb"
    }

    fn storage(&self) -> &MongoStorage {
        &self.outbox
    }

    fn server(&self) -> Option<u32> {
        self.server.process().process_id()
    }

    async fn clear(&mut self) -> Result<(), BoxError> {
        self.floor = self.empty_floor().await?;
        for emptied in ["outbox.messages", "business"] {
            let emptied = self.client.database("bench").collection::<Document>(emptied);
            if emptied.estimated_document_count().await? > 0 {
                emptied.delete_many(doc! {}).await?;
            }
        }
        Ok(())
    }

    async fn stored_bytes(&self) -> Result<u64, BoxError> {
        let stats =
            self.client.database("bench").run_command(doc! { "collStats": "outbox.messages" }).await?;
        let bytes = |name: &str| match stats.get(name) {
            Some(Bson::Int64(bytes)) => u64::try_from(*bytes).unwrap_or(0),
            Some(Bson::Int32(bytes)) => u64::try_from(*bytes).unwrap_or(0),
            _ => 0,
        };
        // The documents before compression; the indexes as they are in the file.
        Ok(bytes("size") + bytes("totalIndexSize"))
    }

    async fn enqueue(&self, batch: &[Message]) -> Result<(), BoxError> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        self.outbox.enqueue(&mut session, batch).await?;
        Ok(session.commit_transaction().await?)
    }

    async fn enqueue_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        self.business().insert_one(doc! { "state": "created" }).session(&mut session).await?;
        self.outbox.enqueue(&mut session, std::slice::from_ref(message)).await?;
        Ok(session.commit_transaction().await?)
    }

    const INSERT_FLOOR: &'static str = "insert-in-transaction";

    async fn insert_floor(&self, batch: &[Message]) -> Result<(), BoxError> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        let documents = batch.iter().map(|message| layout::encode(message, 0));
        self.floor.insert_many(documents).session(&mut session).await?;
        Ok(session.commit_transaction().await?)
    }

    async fn insert_floor_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        self.business().insert_one(doc! { "state": "created" }).session(&mut session).await?;
        self.floor.insert_one(layout::encode(message, 0)).session(&mut session).await?;
        Ok(session.commit_transaction().await?)
    }

    const DRAIN_FLOOR: &'static str = "find-delete";

    async fn drain_floor(&self, batch: u32) -> Result<u32, BoxError> {
        let mut drained = 0;
        loop {
            let mut found = self
                .floor
                .find(doc! {})
                .sort(doc! { "seq": 1 })
                .limit(i64::from(batch))
                .batch_size(batch + 1)
                .await?;
            let mut ids = Vec::with_capacity(batch as usize);
            while found.advance().await? {
                let message: RawDocumentBuf = found.deserialize_current()?;
                ids.push(Bson::from(message.get_object_id("_id")?));
            }
            if ids.is_empty() {
                return Ok(drained);
            }
            drained += u32::try_from(ids.len())?;
            self.floor.delete_many(doc! { "_id": { "$in": ids } }).await?;
        }
    }
}

impl std::fmt::Debug for MongoBench {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MongoBench").field("address", &self.server.address()).finish_non_exhaustive()
    }
}
