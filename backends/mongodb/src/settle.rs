//! Settling runs, each in one transaction: in few round trips what is published as a whole, message by message everything else.

use crate::MongoStorage;
use crate::gather::suspects_index;
use crate::lanes::{Lane, by_document, freed, held_by, members_of, nonce, now as now_expression};
use crate::transaction::{End, Failure};
use crate::verdicts::misfit;
use futures_util::TryFutureExt as _;
use futures_util::future::try_join_all;
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use pillarbox_core::{Error, Outcome, Settled, Settlement, Settlements, Timestamp, Token, Verdict};
use std::collections::HashSet;
use std::time::Duration;

impl MongoStorage {
    pub(crate) async fn settle_runs(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        // Of several, none is changed before the lengths of all are known to be right.
        let lanes = if settlements.len() > 1 { self.check_lengths(settlements).await? } else { Vec::new() };
        let mut answers = Vec::with_capacity(settlements.len());
        let mut waiting: Vec<_> = settlements.iter().enumerate().collect();
        while !waiting.is_empty() {
            // What names a run again waits for the one before it: side by side, any of them could be the first.
            let mut named = HashSet::with_capacity(waiting.len());
            let (now, later): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, (token, _))| named.insert(*token));
            let (together, alone): (Vec<_>, Vec<_>) =
                now.into_iter().partition(|(_, (token, settlement))| {
                    let lane = lanes.iter().find(|lane| lane.is_held_by(token));
                    lane.is_some_and(|lane| lane.plain) && is_published(settlement)
                });
            let tokens: Vec<Token> = together.iter().map(|(_, (token, _))| *token).collect();
            let (at, alone) = if tokens.len() > 1 && self.publish_together(&tokens, &lanes).await? {
                (lanes.first().map(|lane| self.time_of(lane)), alone)
            } else {
                (None, together.iter().chain(&alone).copied().collect())
            };
            if let Some(at) = at {
                let applied = Settled { outcome: Outcome::Applied, at };
                answers.extend(together.iter().map(|(position, _)| (*position, applied)));
            }
            let runs = alone.into_iter().map(|(position, (token, settlement))| {
                self.settle_run(token, settlement).map_ok(move |settled| (position, settled))
            });
            answers.extend(try_join_all(runs).await?);
            waiting = later;
        }
        answers.sort_unstable_by_key(|(position, _)| *position);
        Ok(answers.into_iter().map(|(_, settled)| settled).collect())
    }

    /// Answers the lanes that these settlements name.
    async fn check_lengths(&self, settlements: &Settlements) -> Result<Vec<Lane>, Error> {
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
        Ok(lanes)
    }

    async fn settle_run(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Error> {
        let at = match settlement {
            Settlement::HandBack { after } => self.hand_back(&token, after).await?,
            Settlement::Verdicts(verdicts) if is_published(&settlement) => {
                self.publish(&token, verdicts.len()).await?
            }
            Settlement::Verdicts(_) => None,
        };
        match at {
            Some(at) => Ok(Settled { outcome: Outcome::Applied, at }),
            None => self.settle_slowly(token, settlement).await,
        }
    }

    /// Settles a run whose messages are all published, if it is a plain one and the token is current.
    ///
    /// A transaction, although it costs more round trips than to delete and then to free: its deletions are one entry of the
    /// oplog instead of one each, so that they are cheaper, and no failover comes between.
    async fn publish(&self, token: &Token, count: usize) -> Result<Option<Timestamp>, Error> {
        let mut transaction = self.transaction("settle").await?;
        loop {
            transaction.start().await?;
            let work = self.publish_within(&mut transaction.session, token, count).await;
            if let Some(at) = transaction.end(work).await? {
                return Ok(at);
            }
        }
    }

    async fn publish_within(
        &self,
        session: &mut ClientSession,
        token: &Token,
        count: usize,
    ) -> Result<End<Option<Timestamp>>, Failure> {
        let number = u16::try_from(token.unit).unwrap_or(u16::MAX);
        let lane = self.lane(session, number).await?;
        // Else it is settled already, or somebody has taken it after the lease had run out, or it needs more than this.
        let plain = |lane: &Lane| lane.is_held_by(token) && lane.plain && lane.run as usize == count;
        let Some(lane) = lane.filter(plain) else { return Ok(End::Abort(None)) };
        let update = vec![doc! { "$set": settled() }];
        self.0.lanes.update_one(held_by(token), update).session(&mut *session).await?;
        let at = self.time_of(&lane);
        let deleting = self.0.messages.delete_many(members_of(&[number], lane.members));
        deleting.hint(by_document()).session(session).await?;
        Ok(End::Commit(Some(at)))
    }

    /// Settles several plain runs whose messages are all published in one transaction. Answers whether it did: a token may
    /// have become stale since its lane was read.
    async fn publish_together(&self, tokens: &[Token], lanes: &[Lane]) -> Result<bool, Error> {
        let current = |lane: &&Lane| tokens.iter().any(|token| lane.is_held_by(token));
        let numbers: Vec<u16> = lanes.iter().filter(current).map(|lane| lane.number).collect();
        // While its token is current a lane has these members and no others.
        let members: Vec<Bson> =
            lanes.iter().filter(current).flat_map(|lane| lane.members.iter().cloned()).collect();
        let update = |token| doc! { "q": held_by(token), "u": [{ "$set": settled() }] };
        let updates: Vec<Document> = tokens.iter().map(update).collect();
        let mut transaction = self.transaction("settle").await?;
        loop {
            transaction.start().await?;
            let filter = members_of(&numbers, members.clone());
            let work = self.publish_all_within(&mut transaction.session, &updates, filter).await;
            if let Some(done) = transaction.end(work).await? {
                return Ok(done);
            }
        }
    }

    async fn publish_all_within(
        &self,
        session: &mut ClientSession,
        updates: &[Document],
        members: Document,
    ) -> Result<End<bool>, Failure> {
        self.begin(session).await?;
        if self.update_all(session, self.0.lanes.name(), updates).await? != updates.len() as u64 {
            return Ok(End::Abort(false));
        }
        self.0.messages.delete_many(members).hint(by_document()).session(session).await?;
        Ok(End::Commit(true))
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
            let work = self.settle_within(&mut transaction.session, &token, settlement).await;
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

fn is_published(settlement: &Settlement<'_>) -> bool {
    matches!(settlement, Settlement::Verdicts(verdicts) if verdicts.iter().all(|verdict| *verdict == Verdict::Published))
}
