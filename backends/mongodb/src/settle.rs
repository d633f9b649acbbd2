//! Settling runs: the plain way for what is published as a whole, a transaction for everything else.

use crate::MongoStorage;
use crate::lanes::{Lane, freed, held_by, nonce, now as now_expression};
use crate::transaction::{End, Failure};
use crate::verdicts::misfit;
use futures_util::TryFutureExt as _;
use futures_util::future::try_join_all;
use mongodb::ClientSession;
use mongodb::bson::{Bson, doc};
use mongodb::options::{Acknowledgment, ReturnDocument, WriteConcern};
use pillarbox_core::{Error, Outcome, Settled, Settlement, Settlements, Timestamp, Token, Verdict};
use std::collections::HashSet;
use std::time::Duration;

impl MongoStorage {
    pub(crate) async fn settle_runs(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        if settlements.len() > 1 {
            // Of several, none is changed before the lengths of all are known to be right.
            self.check_lengths(settlements).await?;
        }
        let mut answers = Vec::with_capacity(settlements.len());
        let mut waiting: Vec<_> = settlements.iter().enumerate().collect();
        while !waiting.is_empty() {
            // What names a run again waits for the one before it: side by side, any of them could be the first.
            let mut named = HashSet::with_capacity(waiting.len());
            let (now, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, (token, _))| named.insert(*token));
            let runs = now.into_iter().map(|(position, (token, settlement))| {
                self.settle_run(token, settlement).map_ok(move |settled| (position, settled))
            });
            answers.extend(try_join_all(runs).await?);
            waiting = later;
        }
        answers.sort_unstable_by_key(|(position, _)| *position);
        Ok(answers.into_iter().map(|(_, settled)| settled).collect())
    }

    async fn check_lengths(&self, settlements: &Settlements) -> Result<(), Error> {
        let numbers: Vec<u16> =
            settlements.iter().filter_map(|(token, _)| u16::try_from(token.unit).ok()).collect();
        let lanes = self.whole_lanes(&numbers, "settle").await?;
        for (token, settlement) in settlements.iter() {
            let lane = lanes.iter().find(|lane| lane.is_held_by(&token));
            if let (Some(lane), Settlement::Verdicts(verdicts)) = (lane, settlement)
                && verdicts.len() != lane.run as usize
            {
                return Err(misfit(&token, lane.run, verdicts.len()));
            }
        }
        Ok(())
    }

    async fn settle_run(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Error> {
        match settlement {
            Settlement::HandBack { after } => {
                if let Some(at) = self.hand_back(&token, after).await? {
                    return Ok(Settled { outcome: Outcome::Applied, at });
                }
            }
            Settlement::Verdicts(verdicts) => {
                if verdicts.iter().all(|verdict| *verdict == Verdict::Published)
                    && let Some(at) = self.publish(&token, verdicts.len()).await?
                {
                    return Ok(Settled { outcome: Outcome::Applied, at });
                }
            }
        }
        self.settle_slowly(token, settlement).await
    }

    /// Settles a run whose messages are all published, if it is a plain one and the token is current.
    ///
    /// Three writes, of which only the last waits for the majority: it was made after the others, so it covers them. After the first
    /// one the run is settled, and whoever finds it so deletes the rest. Ids are never used twice, so that a late deletion deletes
    /// nothing but what was published.
    async fn publish(&self, token: &Token, count: usize) -> Result<Option<Timestamp>, Error> {
        let mut filter = held_by(token);
        filter.insert("plain", true);
        filter.insert("run", i64::try_from(count).unwrap_or(i64::MAX));
        let update = vec![doc! { "$set": {
            "version": { "$add": ["$version", 1_i64] },
            "done": true,
            "settled_fence": "$fence",
            "settled_nonce": "$nonce",
            "at": now_expression(self.0.config.clock_offset()),
        } }];
        let settled = self
            .0
            .lanes
            .find_one_and_update(filter, update)
            .projection(doc! { "members": 1, "at": 1 })
            .return_document(ReturnDocument::After)
            .write_concern(first_node())
            .await
            .map_err(|failure| self.map(failure, "settle"))?;
        let Some(settled) = settled else { return Ok(None) };
        let at = settled.get_i64("at").map(Timestamp::from_micros).unwrap_or_default();
        let members = Lane::read(&settled).map(|lane| lane.members).unwrap_or_default();
        // Else somebody was faster at it after the lease had run out, or the first write was lost in a failover: the lane tells.
        Ok(self.roll_forward(token, members).await?.then_some(at))
    }

    /// Deletes what a settled run has published, and frees its lane. Answers whether the lane was still settled by this token.
    async fn roll_forward(&self, token: &Token, members: Vec<Bson>) -> Result<bool, Error> {
        let map = |failure| self.map(failure, "settle");
        let filter = doc! { "_id": { "$in": members } };
        self.0.messages.delete_many(filter).write_concern(first_node()).await.map_err(map)?;
        let mut filter = held_by(token);
        filter.insert("done", true);
        let update = doc! { "$set": freed(), "$inc": { "version": 1_i64 } };
        let freed = self.0.lanes.update_one(filter, update).await.map_err(map)?;
        Ok(freed.matched_count == 1)
    }

    async fn hand_back(&self, token: &Token, after: Duration) -> Result<Option<Timestamp>, Error> {
        let now = now_expression(self.0.config.clock_offset());
        let mut set = freed();
        set.insert("version", doc! { "$add": ["$version", 1_i64] });
        set.insert("settled_fence", "$fence");
        set.insert("settled_nonce", "$nonce");
        set.insert("at", now.clone());
        set.insert("not_before", doc! { "$add": [now, crate::lanes::micros(after)] });
        let settled = self
            .0
            .lanes
            .find_one_and_update(held_by(token), vec![doc! { "$set": set }])
            .projection(doc! { "at": 1 })
            .return_document(ReturnDocument::After)
            .await
            .map_err(|failure| self.map(failure, "settle"))?;
        Ok(settled.map(|settled| settled.get_i64("at").map(Timestamp::from_micros).unwrap_or_default()))
    }

    /// Settles a run in a transaction, or finds out why it cannot be settled.
    async fn settle_slowly(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Error> {
        let mut transaction = self.transaction("settle").await?;
        let (settled, left) = loop {
            transaction.start().await?;
            let work = self.settle_within(&mut transaction.session, &token, settlement).await;
            if let Some(done) = transaction.end(work).await? {
                break done;
            }
        };
        if let Some(members) = left {
            self.roll_forward(&token, members).await?;
        }
        match settled {
            Some(settled) => Ok(settled),
            None => Ok(Settled { outcome: Outcome::Fenced, at: self.server_time("settle").await? }),
        }
    }

    /// Answers the settlement, and what its settler had published and not deleted.
    async fn settle_within(
        &self,
        session: &mut ClientSession,
        token: &Token,
        settlement: Settlement<'_>,
    ) -> Result<End<(Option<Settled>, Option<Vec<Bson>>)>, Failure> {
        let number = u16::try_from(token.unit).unwrap_or(u16::MAX);
        let Some(lane) = self.lane(session, number).await? else { return Ok(End::Abort((None, None))) };
        let at = self.time_of(&lane);
        if !lane.is_held_by(token) {
            let again = lane.was_settled_by(token);
            let outcome = if again { Outcome::AlreadyApplied } else { Outcome::Fenced };
            let left = (again && lane.done).then_some(lane.members);
            // A commit at the majority waits until what was read is safe too: no failover takes this answer back.
            return Ok(End::Commit((Some(Settled { outcome, at }), left)));
        }
        let mut suspects = lane.suspects;
        let mut update = freed();
        match settlement {
            Settlement::Verdicts(verdicts) => {
                self.apply(session, &lane, token, verdicts, at).await?;
                if lane.solo {
                    let left = doc! { "lane": i64::from(number), "suspect": true };
                    suspects = self.0.messages.find_one(left).session(&mut *session).await?.is_some();
                }
            }
            Settlement::HandBack { after } => {
                update.insert("not_before", at.after(after).as_micros());
            }
        }
        update.insert("suspects", suspects);
        update.insert("settled_fence", lane.fence);
        update.insert("settled_nonce", nonce(&token.nonce));
        let mut filter = held_by(token);
        filter.insert("version", lane.version);
        let update = doc! { "$set": update, "$inc": { "version": 1_i64 } };
        self.0.lanes.update_one(filter, update).session(session).await?;
        Ok(End::Commit((Some(Settled { outcome: Outcome::Applied, at }), None)))
    }
}

/// Acknowledged by the primary alone.
fn first_node() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Nodes(1)).build()
}
