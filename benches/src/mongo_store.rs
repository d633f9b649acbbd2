use crate::{BoxError, Keys, Row, Work, drain};
use futures_util::future::try_join_all;
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection, Database};
use pillarbox_core::{Enqueue as _, Message};
use pillarbox_mongodb::{MongoConfig, MongoStorage, layout};
use pillarbox_testkit::servers::MongoServer;
use std::time::{Duration, Instant};

/// How many messages the floor of one at a time has: it would take minutes for all.
const ONE_BY_ONE: u32 = 3_000;

/// Measures the storage in MongoDB, on a replica set of one node. Everything is acknowledged by the majority, the floors too.
pub struct MongoBench {
    server: MongoServer,
    outbox: MongoStorage,
    client: Client,
    messages: u32,
    batch: u32,
    floor: MongoFloor,
}

/// What the outbox in MongoDB is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MongoFloor {
    /// One consumer that reads a batch and deletes it, and claims nothing.
    Batches,
    /// `findOneAndUpdate` for each message, in order, as many outboxes do; and a `deleteOne` for each.
    OneByOne,
}

impl MongoBench {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(messages: u32, batch: u32, floor: MongoFloor) -> Result<Self, BoxError> {
        let server = MongoServer::start()?;
        let mut options = ClientOptions::parse(server.url("bench")).await?;
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options)?;
        let config = MongoConfig::from_url(&server.url("bench"))?.response_timeout(Duration::from_secs(60));
        let outbox = MongoStorage::connect(config).await?;
        Ok(Self { server, outbox, client, messages, batch, floor })
    }

    /// Measures one case, floor and outbox one after the other.
    ///
    /// # Errors
    /// Whatever stops it.
    pub async fn measure(&mut self, work: Work, keys: Keys, relays: u32) -> Result<Row, BoxError> {
        let batches = self.batches(keys)?;
        match work {
            Work::Enqueue => self.enqueue(keys, relays, &batches).await,
            Work::Drain => self.drain(keys, relays, &batches).await,
        }
    }

    fn batches(&self, keys: Keys) -> Result<Vec<Vec<Message>>, BoxError> {
        let numbers: Vec<u32> = (0..self.messages).collect();
        let batch = |numbers: &[u32]| numbers.iter().map(|number| keys.message(*number)).collect();
        Ok(numbers.chunks(self.batch as usize).map(batch).collect::<Result<_, _>>()?)
    }

    async fn enqueue(&self, keys: Keys, producers: u32, batches: &[Vec<Message>]) -> Result<Row, BoxError> {
        let floor = self.floor().await?;
        let begun = Instant::now();
        let share = batches.len().div_ceil(producers as usize);
        try_join_all(batches.chunks(share).map(|batches| self.insert_all(&floor, batches))).await?;
        let took = begun.elapsed();
        self.clear().await?;
        let begun = Instant::now();
        try_join_all(batches.chunks(share).map(|batches| self.enqueue_all(batches))).await?;
        let ours = begun.elapsed();
        let rate = per_second(self.messages, took);
        let mut row = self.row(Work::Enqueue, keys, producers, "insert-in-transaction", rate);
        self.rate(&mut row, ours);
        Ok(row)
    }

    async fn drain(&self, keys: Keys, relays: u32, batches: &[Vec<Message>]) -> Result<Row, BoxError> {
        let count = u64::from(self.messages);
        self.clear().await?;
        self.enqueue_all(batches).await?;
        let ours = drain::by_relays(&self.outbox, relays, self.batch, count).await?;

        self.clear().await?;
        self.enqueue_all(batches).await?;
        let before = self.processor()?;
        let plain = drain::by_loop(&self.outbox, self.batch, count).await?;
        let server = self.processor()? - before;

        let floor = self.floor().await?;
        let messages =
            if self.floor == MongoFloor::OneByOne { ONE_BY_ONE.min(self.messages) } else { self.messages };
        let needed = messages.div_ceil(self.batch) as usize;
        self.insert_all(&floor, &batches[..needed.min(batches.len())]).await?;
        let before = self.processor()?;
        let begun = Instant::now();
        let (name, drained) = match self.floor {
            MongoFloor::Batches => ("find-delete", self.in_batches(&floor).await?),
            MongoFloor::OneByOne => ("find-one-and-update", self.one_by_one(&floor).await?),
        };
        let took = begun.elapsed();
        let floor_server = self.processor()? - before;

        let mut row = self.row(Work::Drain, keys, relays, name, per_second(drained, took));
        self.rate(&mut row, ours);
        row.loop_per_s = Some(per_second(self.messages, plain));
        row.server_us = Some(hundredths(server * 1e6 / f64::from(self.messages)));
        row.floor_server_us = Some(hundredths(floor_server * 1e6 / f64::from(drained)));
        Ok(row)
    }

    async fn in_batches(&self, floor: &Collection<RawDocumentBuf>) -> Result<u32, BoxError> {
        let mut drained = 0;
        loop {
            let mut found = floor
                .find(doc! {})
                .sort(doc! { "seq": 1 })
                .limit(i64::from(self.batch))
                .batch_size(self.batch + 1)
                .await?;
            let mut ids = Vec::with_capacity(self.batch as usize);
            while found.advance().await? {
                let message: RawDocumentBuf = found.deserialize_current()?;
                ids.push(Bson::from(message.get_object_id("_id")?));
            }
            if ids.is_empty() {
                return Ok(drained);
            }
            drained += u32::try_from(ids.len())?;
            floor.delete_many(doc! { "_id": { "$in": ids } }).await?;
        }
    }

    async fn one_by_one(&self, floor: &Collection<RawDocumentBuf>) -> Result<u32, BoxError> {
        let mut drained = 0;
        let update = doc! { "$set": { "at": 1_i64, "holder": "relay" } };
        loop {
            let claiming =
                floor.find_one_and_update(doc! { "at": 0_i64 }, update.clone()).sort(doc! { "seq": 1 });
            let Some(message) = claiming.await? else { return Ok(drained) };
            floor.delete_one(doc! { "_id": message.get_object_id("_id")? }).await?;
            drained += 1;
        }
    }

    async fn enqueue_all(&self, batches: &[Vec<Message>]) -> Result<(), BoxError> {
        for batch in batches {
            let mut session = self.client.start_session().await?;
            session.start_transaction().await?;
            self.outbox.enqueue(&mut session, batch).await?;
            session.commit_transaction().await?;
        }
        Ok(())
    }

    async fn insert_all(
        &self,
        floor: &Collection<RawDocumentBuf>,
        batches: &[Vec<Message>],
    ) -> Result<(), BoxError> {
        for batch in batches {
            let mut session = self.client.start_session().await?;
            session.start_transaction().await?;
            let documents = batch.iter().map(|message| layout::encode(message, 0));
            floor.insert_many(documents).session(&mut session).await?;
            session.commit_transaction().await?;
        }
        Ok(())
    }

    /// An empty collection with the one index that its consumer needs.
    async fn floor(&self) -> Result<Collection<RawDocumentBuf>, BoxError> {
        let database: Database = self.client.database("bench");
        database.collection::<Document>("floor").drop().await?;
        database.create_collection("floor").await?;
        let index = mongodb::IndexModel::builder().keys(doc! { "seq": 1 }).build();
        database.collection::<Document>("floor").create_index(index).await?;
        Ok(database.collection("floor"))
    }

    /// Makes the outbox anew, so that nothing of the run before is left in its indexes.
    async fn clear(&self) -> Result<(), BoxError> {
        let messages = self.client.database("bench").collection::<Document>("outbox.messages");
        if messages.estimated_document_count().await? == 0 {
            return Ok(());
        }
        messages.delete_many(doc! {}).await?;
        Ok(())
    }

    /// Seconds of processor that the server has used.
    fn processor(&self) -> Result<f64, BoxError> {
        let status = self.server.command(&doc! { "serverStatus": 1 })?;
        let info = status.get_document("extra_info")?;
        #[allow(clippy::cast_precision_loss, reason = "microseconds of hours are far below 2^52")]
        let fact = |name: &str| match info.get(name) {
            Some(Bson::Int64(micros)) => Some(*micros as f64),
            Some(Bson::Int32(micros)) => Some(f64::from(*micros)),
            _ => None,
        };
        let used = fact("user_time_us").zip(fact("system_time_us"));
        used.map(|(user, system)| (user + system) / 1e6)
            .ok_or_else(|| "serverStatus does not tell processor times".into())
    }

    fn row(&self, work: Work, keys: Keys, relays: u32, floor: &'static str, floor_per_s: u64) -> Row {
        Row {
            storage: "mongodb",
            work,
            case: keys.name(),
            relays,
            batch: self.batch,
            floor,
            floor_per_s,
            ours_per_s: 0,
            ratio: 0.0,
            loop_per_s: None,
            server_us: None,
            floor_server_us: None,
        }
    }

    fn rate(&self, row: &mut Row, took: Duration) {
        row.ours_per_s = per_second(self.messages, took);
        #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let ratio = row.ours_per_s as f64 / row.floor_per_s.max(1) as f64;
        row.ratio = hundredths(ratio);
    }
}

impl std::fmt::Debug for MongoBench {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MongoBench").field("address", &self.server.address()).finish_non_exhaustive()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far below 2^63"
)]
fn per_second(messages: u32, took: Duration) -> u64 {
    (f64::from(messages) / took.as_secs_f64()).round() as u64
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
