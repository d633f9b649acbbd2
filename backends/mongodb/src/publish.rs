//! Settling runs that are published as a whole, many at once and without a transaction: within one, a deletion costs the server about a
//! fifth more.
//!
//! First the lanes note that their runs are published, matched by the tokens, and the majority has to confirm that: this decides. Then
//! the messages are deleted, and then the lanes are free. Where that is cut off, a repetition of the settlement goes on, or the claim that
//! finds the lane when its lease has run out. Two of them may do it side by side: whatever they delete is published.

use crate::MongoStorage;
use crate::lanes::{Lane, by_document, freed, held_by, members_of, nonce};
use crate::settle::{check_lengths, is_published, numbers_of};
use mongodb::bson::{Document, doc};
use pillarbox_core::{Error, ErrorKind, Outcome, Settled, Settlements, Token};
use std::collections::HashSet;
use std::time::Duration;

/// How often it is tried in all: while the server is stepping down or cannot be reached, and where somebody else was faster at a lane.
const TRIES: u64 = 40;

impl MongoStorage {
    /// Settles those runs that are plain ones and whose messages are all published, where the token is current. Answers by position.
    /// Only first mentions of a token are looked at.
    pub(crate) async fn publish(
        &self,
        settlements: &Settlements,
        firsts: &[bool],
    ) -> Result<Vec<Option<Settled>>, Error> {
        let mut noted = HashSet::new();
        let mut tried = 0;
        loop {
            tried += 1;
            match self.try_to_publish(settlements, firsts, &mut noted).await {
                Ok(answers) => return Ok(answers),
                Err(error) if error.kind() != ErrorKind::Unavailable || tried == TRIES => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(tried.min(10))).await,
            }
        }
    }

    /// `noted` gets the tokens whose lanes may have this call's note.
    async fn try_to_publish(
        &self,
        settlements: &Settlements,
        firsts: &[bool],
        noted: &mut HashSet<Token>,
    ) -> Result<Vec<Option<Settled>>, Error> {
        let lanes = self.whole_lanes(&numbers_of(settlements), "settle").await?;
        check_lengths(settlements, &lanes)?;
        let mut answers = vec![None; settlements.len()];
        let (mut numbers, mut members) = (Vec::new(), Vec::new());
        let (mut notes, mut ends) = (Vec::new(), Vec::new());
        for (position, (token, settlement)) in settlements.iter().enumerate() {
            if !firsts[position] || !is_published(&settlement) {
                continue;
            }
            let is_held = |lane: &&Lane| lane.plain && lane.is_held_by(&token);
            let is_cleared = |lane: &&Lane| lane.clearing && lane.was_settled_by(&token);
            let (lane, outcome) = if let Some(lane) = lanes.iter().find(is_held) {
                notes.push(doc! { "q": held_by(&token), "u": published(&token) });
                noted.insert(token);
                (lane, Outcome::Applied)
            } else if let Some(lane) = lanes.iter().find(is_cleared) {
                // Also where its note is an earlier try's, the majority has to confirm it before anything is deleted.
                notes.push(doc! { "q": cleared_for(&token), "u": { "$inc": { "version": 1_i64 } } });
                let mine = noted.contains(&token);
                (lane, if mine { Outcome::Applied } else { Outcome::AlreadyApplied })
            } else {
                // Settled long ago, or fenced, or it needs more than this.
                continue;
            };
            answers[position] = Some(Settled { outcome, at: self.time_of(lane) });
            numbers.push(lane.number);
            members.extend(lane.members.iter().cloned());
            ends.push(doc! {
                "q": cleared_for(&token),
                "u": { "$set": freed(), "$inc": { "version": 1_i64 } },
            });
        }
        if notes.is_empty() {
            return Ok(answers);
        }
        if self.update_lanes(&notes, "settle").await? < notes.len() {
            return Err(Error::new(ErrorKind::Unavailable, "settle")
                .describe("somebody else has just taken or freed one of the lanes; it can be repeated"));
        }
        let deleting = self.0.messages.delete_many(members_of(&numbers, members)).hint(by_document());
        deleting
            .write_concern(self.0.deletion.clone())
            .await
            .map_err(|failure| self.map(failure, "settle"))?;
        // What does not match any more was freed by a claim that went on with this.
        self.update_lanes(&ends, "settle").await?;
        Ok(answers)
    }
}

/// The update that notes that the run of a lane is published. The lease stays, and says until when nobody else need care for the deletion.
/// No pipeline, which would cost the server about half as much again.
fn published(token: &Token) -> Document {
    doc! {
        "$set": {
            "held": false,
            "clearing": true,
            "settled_fence": i64::try_from(token.fence).unwrap_or(-1),
            "settled_nonce": nonce(&token.nonce),
        },
        "$inc": { "version": 1_i64 },
    }
}

/// What matches a lane whose run was settled by this token, and still has to be deleted.
fn cleared_for(token: &Token) -> Document {
    doc! {
        "_id": i64::try_from(token.unit).unwrap_or(-1),
        "settled_fence": i64::try_from(token.fence).unwrap_or(-1),
        "settled_nonce": nonce(&token.nonce),
        "clearing": true,
    }
}
