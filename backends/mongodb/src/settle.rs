//! Settling runs: what is published as a whole in few steps, everything else message by message, each run in one transaction.

use crate::MongoStorage;
use crate::lanes::{Lane, freed, held_by, nonce, now as now_expression};
use crate::questions::suspects_index;
use crate::transaction::{End, Failure};
use crate::verdicts::misfit;
use futures_util::TryFutureExt as _;
use futures_util::future::try_join_all;
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};
use mongodb::options::ReturnDocument;
use pillarbox_core::{Error, Outcome, Settled, Settlement, Settlements, Timestamp, Token, Verdict};
use std::collections::HashSet;
use std::time::Duration;

impl MongoStorage {
    pub(crate) async fn settle_runs(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let mut answers: Vec<Option<Settled>> = vec![None; settlements.len()];
        // What names a run again waits for the one before it: side by side, any of them could be the first.
        let mut named = HashSet::with_capacity(settlements.len());
        let firsts: Vec<bool> = settlements.iter().map(|(token, _)| named.insert(token)).collect();
        if settlements.iter().any(|(_, settlement)| is_published(&settlement)) {
            answers = self.publish(settlements, &firsts).await?;
        } else if settlements.len() > 1 {
            // Of several, none is changed before the lengths of all are known to be right.
            let lanes = self.whole_lanes(&numbers_of(settlements), "settle").await?;
            check_lengths(settlements, &lanes)?;
        }
        let mut waiting: Vec<_> =
            settlements.iter().enumerate().filter(|(position, _)| answers[*position].is_none()).collect();
        while !waiting.is_empty() {
            let mut named = HashSet::with_capacity(waiting.len());
            let (now, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, (token, _))| named.insert(*token));
            let runs = now.into_iter().map(|(position, (token, settlement))| {
                self.settle_run(token, settlement).map_ok(move |settled| (position, settled))
            });
            for (position, settled) in try_join_all(runs).await? {
                answers[position] = Some(settled);
            }
            waiting = later;
        }
        // Every position was among those that waited, or was answered before.
        Ok(answers.into_iter().flatten().collect())
    }

    async fn settle_run(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Error> {
        if let Settlement::HandBack { after } = settlement
            && let Some(at) = self.hand_back(&token, after).await?
        {
            return Ok(Settled { outcome: Outcome::Applied, at });
        }
        self.settle_slowly(token, settlement).await
    }

    async fn hand_back(&self, token: &Token, after: Duration) -> Result<Option<Timestamp>, Error> {
        let now = now_expression(self.0.config.clock_offset());
        let mut set = settled();
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

    /// Settles a run message by message, or finds out why it cannot be settled.
    async fn settle_slowly(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Error> {
        let mut transaction = self.transaction("settle").await?;
        let settled = loop {
            transaction.start().await?;
            let work = self.settle_within(transaction.session(), &token, settlement).await;
            if let Some(done) = transaction.end(work).await? {
                break done;
            }
        };
        match settled {
            Some(settled) => Ok(settled),
            None => Ok(Settled { outcome: Outcome::Fenced, at: self.server_time("settle").await? }),
        }
    }

    /// `None` where there is no such lane.
    async fn settle_within(
        &self,
        session: &mut ClientSession,
        token: &Token,
        settlement: Settlement<'_>,
    ) -> Result<End<Option<Settled>>, Failure> {
        let number = u16::try_from(token.unit).unwrap_or(u16::MAX);
        let Some(lane) = self.lane(session, number).await? else { return Ok(End::Abort(None)) };
        let at = self.time_of(&lane);
        if !lane.is_held_by(token) {
            let again = lane.was_settled_by(token);
            let outcome = if again { Outcome::AlreadyApplied } else { Outcome::Fenced };
            // A commit at the majority waits until what was read is safe too: no failover takes this answer back.
            return Ok(End::Commit(Some(Settled { outcome, at })));
        }
        let mut suspects = lane.suspects;
        let mut update = freed();
        match settlement {
            Settlement::Verdicts(verdicts) => {
                self.apply(session, &lane, token, verdicts, at).await?;
                if lane.solo {
                    let left = doc! { "lane": i64::from(number), "suspect": true };
                    let finding = self.0.messages.find_one(left).hint(suspects_index());
                    suspects = finding.session(&mut *session).await?.is_some();
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
        Ok(End::Commit(Some(Settled { outcome: Outcome::Applied, at })))
    }
}

/// What settles a lane for whoever holds it, as the fields of a `$set` in a pipeline.
fn settled() -> Document {
    let mut set = freed();
    set.insert("version", doc! { "$add": ["$version", 1_i64] });
    set.insert("settled_fence", "$fence");
    set.insert("settled_nonce", "$nonce");
    set
}

pub(crate) fn numbers_of(settlements: &Settlements) -> Vec<u16> {
    settlements.iter().filter_map(|(token, _)| u16::try_from(token.unit).ok()).collect()
}

pub(crate) fn check_lengths(settlements: &Settlements, lanes: &[Lane]) -> Result<(), Error> {
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

pub(crate) fn is_published(settlement: &Settlement<'_>) -> bool {
    matches!(settlement, Settlement::Verdicts(verdicts) if verdicts.iter().all(|verdict| *verdict == Verdict::Published))
}
