use crate::peer::{Measured, Peer, payload};
use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use pillarbox_benches::BoxError;
use std::time::Instant;

/// One `findOneAndUpdate` for each message, in order, and one `deleteOne`, as many outboxes do.
pub(crate) struct OneByOne(Collection<Document>);

impl OneByOne {
    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        let mut options = ClientOptions::parse(url).await?;
        options.write_concern = Some(WriteConcern::majority());
        Ok(Self(Client::with_options(options)?.database("bench").collection("one_by_one")))
    }
}

#[async_trait(?Send)]
impl Peer for OneByOne {
    fn name(&self) -> &'static str {
        "findOneAndUpdate loop"
    }

    fn promises_less(&self) -> &'static str {
        "no lease, no fence, no attempts, no order per key"
    }

    fn part(&self) -> u32 {
        20
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        self.0.drop().await?;
        self.0.create_index(IndexModel::builder().keys(doc! { "state": 1, "at": 1 }).build()).await?;
        for first in (0..messages).step_by(500) {
            let numbers = first..messages.min(first + 500);
            let documents =
                numbers.map(|number| doc! { "state": "pending", "at": number, "payload": payload() });
            self.0.insert_many(documents).await?;
        }
        let claim = doc! { "$set": { "state": "claimed", "holder": "relay" } };
        let (begun, mut drained) = (Instant::now(), 0);
        loop {
            let claiming =
                self.0.find_one_and_update(doc! { "state": "pending" }, claim.clone()).sort(doc! { "at": 1 });
            let Some(message) = claiming.await? else { break };
            self.0.delete_one(doc! { "_id": message.get_object_id("_id")? }).await?;
            drained += 1;
        }
        Ok(Measured { drained, took: begun.elapsed() })
    }
}
