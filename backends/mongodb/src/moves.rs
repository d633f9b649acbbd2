//! What a claim moves before it hands out: what has fallen due to the tails of its keys, and what waits behind a parked key out of the way.

use crate::MongoStorage;
use crate::lanes::{by_document, members_of};
use crate::layout::{Found, PARKED, READY};
use crate::transaction::{End, Failure};
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use pillarbox_core::Error;
use std::collections::{BTreeMap, HashMap};

/// So many scheduled messages with a key one claim moves to the tails of their keys.
const PROMOTED: usize = 200;

impl MongoStorage {
    /// Moves scheduled messages with a key, whose time has come, to the tails of their keys.
    pub(crate) async fn promote(
        &self,
        found: &[Found],
        versions: &HashMap<u16, i64>,
    ) -> Result<usize, Error> {
        let mut lanes: BTreeMap<u16, i64> = BTreeMap::new();
        let mut updates = Vec::new();
        let keyed = found.iter().filter(|found| found.key.is_some());
        for one in keyed.take(PROMOTED) {
            let Some(version) = versions.get(&one.lane) else { continue };
            lanes.insert(one.lane, *version);
            updates.push(doc! {
                "q": { "_id": one.document_id.clone(), "lane": i64::from(one.lane), "at": one.at },
                "hint": { "_id": 1 },
                "u": { "$set": { "at": READY }, "$currentDate": { "seq": { "$type": "timestamp" } } },
            });
        }
        let outbox = self.clone();
        let promoting = async move {
            let mut transaction = outbox.transaction("claim").await?;
            loop {
                transaction.start().await?;
                let work = outbox.promote_all(transaction.session(), &lanes, &updates).await;
                if let Some(done) = transaction.end(work).await? {
                    return Ok(if done { updates.len() } else { 0 });
                }
            }
        };
        self.to_the_end("claim", promoting).await
    }

    async fn promote_all(
        &self,
        session: &mut ClientSession,
        lanes: &BTreeMap<u16, i64>,
        updates: &[Document],
    ) -> Result<End<bool>, Failure> {
        for (lane, version) in lanes {
            if !self.touch(session, *lane, *version).await? {
                return Ok(End::Abort(false));
            }
        }
        self.update_all(session, self.0.messages.name(), updates).await?;
        Ok(End::Commit(true))
    }

    /// Moves messages out of the way of a lane whose keys are parked. Answers whether the lane was as it had been read.
    pub(crate) async fn divert(&self, lane: u16, version: i64, ids: Vec<Bson>) -> Result<bool, Error> {
        let outbox = self.clone();
        let diverting = async move {
            let mut transaction = outbox.transaction("claim").await?;
            loop {
                transaction.start().await?;
                let work = outbox.divert_all(transaction.session(), lane, version, &ids).await;
                if let Some(done) = transaction.end(work).await? {
                    return Ok(done);
                }
            }
        };
        self.to_the_end("claim", diverting).await
    }

    async fn divert_all(
        &self,
        session: &mut ClientSession,
        lane: u16,
        version: i64,
        ids: &[Bson],
    ) -> Result<End<bool>, Failure> {
        if !self.touch(session, lane, version).await? {
            return Ok(End::Abort(false));
        }
        let mut filter = members_of(lane, ids.to_vec());
        filter.insert("at", READY);
        let update = doc! { "$set": { "at": PARKED } };
        self.0.messages.update_many(filter, update).hint(by_document()).session(session).await?;
        Ok(End::Commit(true))
    }

    /// Notes that something in a free lane changes, so that whoever has read it before chooses again.
    pub(crate) async fn touch(
        &self,
        session: &mut ClientSession,
        lane: u16,
        version: i64,
    ) -> Result<bool, mongodb::error::Error> {
        let filter = doc! { "_id": i64::from(lane), "version": version, "held": false };
        let update = doc! { "$inc": { "version": 1_i64 } };
        let touched = self.0.lanes.update_one(filter, update).session(session).await?;
        Ok(touched.matched_count == 1)
    }
}
