//! What the next claim does with runs whose leases ran out: it strikes them.

use crate::MongoStorage;
use crate::dead::Burial;
use crate::error::code;
use crate::lanes::{Lane, by_document, freed, members_of};
use crate::layout::{PARKED, read};
use crate::questions::aside_index;
use crate::transaction::{End, Failure};
use futures_util::future::join_all;
use mongodb::ClientSession;
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::{Bson, doc};
use pillarbox_core::{Error, Timestamp};

/// So often a lane is tried that somebody else's transaction has.
const TRIES: u32 = 3;
/// The server's code for a document that another transaction has written and not committed.
const WRITE_CONFLICT: i32 = 112;

/// What came of leases that had run out.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// How many messages were buried.
    pub(crate) buried: u32,
    /// Lanes that somebody else's transaction has. Where its relay was killed in the middle of a settlement, the server gives it up by
    /// itself, after a minute if nothing else is set; until then the other lanes go on.
    pub(crate) stuck: Vec<u16>,
}

impl MongoStorage {
    /// Ends the leases of these lanes that have run out.
    pub(crate) async fn reap(&self, lanes: &[u16], now: Timestamp) -> Result<Reaped, Error> {
        let mut reaped = Reaped::default();
        let reaping = lanes.iter().map(|lane| {
            let (outbox, lane) = (self.clone(), *lane);
            self.to_the_end("claim", async move { outbox.reap_lane(lane, now).await })
        });
        let outcomes = join_all(reaping).await;
        for (lane, outcome) in lanes.iter().zip(outcomes) {
            match outcome? {
                Some(buried) => reaped.buried += buried,
                None => reaped.stuck.push(*lane),
            }
        }
        Ok(reaped)
    }

    /// Answers how many messages that buried; `None` if the lane is stuck.
    async fn reap_lane(&self, lane: u16, now: Timestamp) -> Result<Option<u32>, Error> {
        let mut transaction = self.transaction("claim").await?;
        for tried in 1.. {
            transaction.start().await?;
            let mut work = self.end_lease(transaction.session(), lane, now).await.map(End::some);
            let met = matches!(&work, Err(Failure::Client(failure)) if code(failure) == Some(WRITE_CONFLICT));
            if met && tried >= TRIES {
                work = Ok(End::Abort(None));
            }
            if let Some(buried) = transaction.end(work).await? {
                return Ok(buried);
            }
        }
        Ok(None)
    }

    async fn end_lease(
        &self,
        session: &mut ClientSession,
        lane: u16,
        now: Timestamp,
    ) -> Result<End<u32>, Failure> {
        let lane = self.lane(session, lane).await?;
        // Somebody else may have been faster.
        let Some(lane) = lane.filter(|lane| lane.is_busy() && !lane.is_live(now)) else {
            return Ok(End::Abort(0));
        };
        let mut update = freed();
        let buried = if lane.clearing {
            self.clear(session, &lane).await?;
            0
        } else {
            update.insert("suspects", lane.suspects || lane.run / 2 <= 1);
            self.strike(session, &lane, now).await?
        };
        let filter = doc! { "_id": i64::from(lane.number), "version": lane.version };
        let update = doc! { "$set": update, "$inc": { "version": 1_i64, "fence": 1_i64 } };
        self.0.lanes.update_one(filter, update).session(session).await?;
        Ok(End::Commit(buried))
    }

    /// Ends what a settlement began whose relay was killed between its writes: the run is published.
    async fn clear(&self, session: &mut ClientSession, lane: &Lane) -> Result<(), Failure> {
        let deleting = self.0.messages.delete_many(members_of(lane.number, lane.members.clone()));
        deleting.hint(by_document()).session(session).await?;
        Ok(())
    }

    /// Charges a claim that ended without an outcome: the next run from here is half as long, and what stood alone on a
    /// renewed claim comes nearer to its burial.
    async fn strike(&self, session: &mut ClientSession, lane: &Lane, now: Timestamp) -> Result<u32, Failure> {
        let filter = members_of(lane.number, lane.members.clone());
        let limit = i64::from((lane.run / 2).max(1));
        let mut set = doc! { "limit": limit };
        if limit == 1 {
            set.insert("suspect", true);
        }
        if lane.solo && lane.renewed {
            let finding = self.0.messages.find_one(filter.clone()).hint(by_document());
            let Some(document) = finding.session(&mut *session).await? else { return Ok(0) };
            let found = read(document.clone());
            let strikes = found.strikes.saturating_add(1);
            if strikes >= self.0.settings.max_strikes {
                let reason = format!("its relay died {strikes} times while it held this message alone");
                let burial = Burial {
                    document,
                    attempts: found.attempts,
                    strikes,
                    reason,
                    key: found.key,
                    lane: lane.number,
                };
                self.bury(session, vec![burial], now).await?;
                self.0.messages.delete_many(filter).hint(by_document()).session(&mut *session).await?;
                self.refresh_parks(session, lane.number, &lane.keys).await?;
                return Ok(1);
            }
            set.insert("strikes", i64::from(strikes));
        }
        let updating = self.0.messages.update_many(filter, doc! { "$set": set });
        updating.hint(by_document()).session(session).await?;
        Ok(0)
    }

    /// A lane as a transaction sees it, with the server's time.
    pub(crate) async fn lane(
        &self,
        session: &mut ClientSession,
        lane: u16,
    ) -> Result<Option<Lane>, mongodb::error::Error> {
        let pipeline =
            [doc! { "$match": { "_id": i64::from(lane) } }, doc! { "$addFields": { "now": "$$NOW" } }];
        let finding = self.0.lanes.aggregate(pipeline).with_type::<RawDocumentBuf>();
        let mut cursor = finding.session(&mut *session).await?;
        let document = cursor.next(session).await.transpose()?;
        Ok(document.and_then(|document| Lane::read(&document)))
    }

    /// Looks at parked keys of which a run had messages: frees those behind which nothing waits any more, and lets the others be
    /// claimed when their first message is due. A blocked key stays so.
    pub(crate) async fn refresh_parks(
        &self,
        session: &mut ClientSession,
        lane: u16,
        keys: &[String],
    ) -> Result<(), Failure> {
        for key in keys {
            let first = self
                .0
                .messages
                .find_one(doc! { "lane": i64::from(lane), "key": key, "at": PARKED })
                .sort(doc! { "seq": 1 })
                .hint(aside_index())
                .session(&mut *session)
                .await?;
            let filter = doc! { "_id": key, "blocked": { "$exists": false } };
            if let Some(first) = first {
                let until = Bson::from(read(first).wait);
                let update = doc! { "$set": { "until": until } };
                self.0.parked.update_one(filter, update).session(&mut *session).await?;
            } else {
                self.0.parked.delete_one(filter).session(&mut *session).await?;
            }
        }
        Ok(())
    }
}
