//! Settling runs that are published as a whole, many at once and without a transaction: within one, a deletion costs the server about a
//! fifth more.
//!
//! First the lanes note that their runs are published, matched by the tokens, and the majority has to confirm that: this decides. Then
//! the messages are deleted, and then the lanes are free. Where that is cut off, a repetition of the settlement goes on, or the claim that
//! finds the lane after a while. Two of them may do it side by side: whatever they delete is published.

use crate::MongoStorage;
use crate::lanes::{Lane, freed, held_by, members_of, nonce};
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
        let (mut notes, mut deletes, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (position, (token, settlement)) in settlements.iter().enumerate() {
            if !firsts[position] || !is_published(&settlement) {
                continue;
            }
            let is_held = |lane: &&Lane| lane.plain && lane.is_held_by(&token);
            let is_cleared = |lane: &&Lane| lane.clearing && lane.was_settled_by(&token);
            let (lane, outcome) = if let Some(lane) = lanes.iter().find(is_held) {
                notes.push(self.note_for(&token, lane));
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
            let members = members_of(lane.number, lane.members.clone());
            deletes.push(doc! { "q": members, "limit": 0, "hint": { "_id": 1 } });
            let free = doc! { "$set": freed(), "$inc": { "version": 1_i64 } };
            ends.push(doc! { "q": cleared_for(&token), "u": free });
        }
        if notes.is_empty() {
            return Ok(answers);
        }
        let all = notes.len();
        if self.update_lanes(notes, "settle").await? < all {
            return Err(Error::new(ErrorKind::Unavailable, "settle")
                .describe("somebody else has just taken or freed one of the lanes; it can be repeated"));
        }
        // At the majority too: a lane that is free must not come through a failover that its deletion does not come through.
        self.delete_published(deletes).await?;
        // What does not match any more was freed by a claim that went on with this.
        self.update_lanes(ends, "settle").await?;
        Ok(answers)
    }

    /// The update that notes that the run of a lane is published. No pipeline, which would cost the server about half as much again.
    fn note_for(&self, token: &Token, lane: &Lane) -> Document {
        let mut held = held_by(token);
        // What was read of the lane, its members among it, is of this very claim, and of no state that a failover has taken back.
        held.insert("claimed_at", lane.claimed_at);
        // Nothing is leased any more. So long nobody else need care for the deletion.
        let until = self.time_of(lane).after(self.0.config.response_timeout).as_micros();
        let note = doc! {
            "held": false,
            "clearing": true,
            "settled_fence": lane.fence,
            "settled_nonce": nonce(&token.nonce),
        };
        doc! { "q": held, "u": { "$set": note, "$min": { "until": until }, "$inc": { "version": 1_i64 } } }
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
