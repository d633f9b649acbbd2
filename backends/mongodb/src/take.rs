//! Taking the lanes of a claim, and answering a claim again whose answer was lost.

use crate::MongoStorage;
use crate::assemble::Pick;
use crate::lanes::{Lane, by_document, members_of, micros, nonce, now as now_expression};
use crate::layout::Found;
use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, doc};
use pillarbox_core::{Claim, Claimed, Entry, Error, Run, Timestamp};
use std::collections::HashMap;

impl MongoStorage {
    /// Takes lanes in one command, those that have not changed since they were read.
    pub(crate) async fn take(
        &self,
        picks: Vec<Pick>,
        claim: &Claim,
    ) -> Result<Vec<(Run, Vec<Entry>)>, Error> {
        let cleaned = join_all(picks.into_iter().map(|pick| self.out_of_the_way(pick))).await;
        let mut picks = Vec::with_capacity(cleaned.len());
        for pick in cleaned {
            picks.extend(pick?);
        }
        if picks.is_empty() {
            return Ok(Vec::new());
        }
        let updates: Vec<Document> = picks.iter().map(|pick| self.taking(pick, claim)).collect();
        let all_taken = self.update_lanes(updates, "claim").await? == picks.len();
        let mut lanes = self.taken(&picks, claim, all_taken).await?;
        let mut runs = Vec::with_capacity(picks.len());
        for pick in picks {
            let len = length_of(&pick);
            let is_ours = |lane: &Lane| {
                // Where not all are, some may have been taken by another try of this very claim, which found other messages.
                let same = || lane.members.iter().eq(pick.found.iter().map(|found| &found.document_id));
                lane.number == pick.lane && lane.run == len && (all_taken || same())
            };
            if let Some(place) = lanes.iter().position(is_ours) {
                let run = run_of(&lanes.swap_remove(place));
                runs.push((run, pick.found.into_iter().map(entry).collect()));
            }
        }
        // What is left is this claim's too, and only the repetition can answer it.
        if lanes.is_empty() { Ok(runs) } else { Ok(Vec::new()) }
    }

    /// Moves what has to wait behind parked keys out of the way of a run; `None` if no run is left, or the lane has changed.
    async fn out_of_the_way(&self, mut pick: Pick) -> Result<Option<Pick>, Error> {
        let diverted = std::mem::take(&mut pick.diverted);
        if !diverted.is_empty() {
            if !self.divert(pick.lane, pick.version, diverted).await? {
                return Ok(None);
            }
            pick.version += 1;
        }
        Ok(Some(pick).filter(|pick| !pick.found.is_empty()))
    }

    /// What takes a lane.
    fn taking(&self, pick: &Pick, claim: &Claim) -> Document {
        let now = now_expression(self.0.config.clock_offset());
        let members: Vec<Bson> = pick.found.iter().map(|found| found.document_id.clone()).collect();
        // What a plain run needs at its end is no transaction.
        let plain = pick.keys.is_empty() && !claim.solo && !self.0.settings.keep_published;
        doc! {
            "q": { "_id": i64::from(pick.lane), "version": pick.version, "held": false },
            "u": [{ "$set": {
                "version": { "$add": ["$version", 1_i64] },
                "fence": { "$add": ["$fence", 1_i64] },
                "nonce": nonce(&claim.nonce),
                "held": true,
                "plain": plain,
                "solo": claim.solo,
                "renewed": false,
                "claimed_at": now.clone(),
                "until": { "$add": [now, micros(claim.lease)] },
                "not_before": 0_i64,
                "run": i64::from(length_of(pick)),
                "members": { "$literal": members },
                "keys": { "$literal": pick.keys.clone() },
            } }],
        }
    }

    /// The lanes of these picks that are this claim's, with their members only where those have to be looked at.
    async fn taken(&self, picks: &[Pick], claim: &Claim, all_taken: bool) -> Result<Vec<Lane>, Error> {
        let map = |failure| self.map(failure, "claim");
        let numbers: Vec<i64> = picks.iter().map(|pick| i64::from(pick.lane)).collect();
        let filter = doc! { "_id": { "$in": numbers }, "held": true, "nonce": nonce(&claim.nonce) };
        let hidden = if all_taken {
            doc! { "members": 0, "keys": 0 }
        } else {
            doc! { "keys": 0 }
        };
        let mut cursor = self.0.lanes.find(filter).projection(hidden).await.map_err(map)?;
        let mut lanes = Vec::with_capacity(picks.len());
        while cursor.advance().await.map_err(map)? {
            lanes.extend(Lane::read(cursor.current()));
        }
        Ok(lanes)
    }

    /// The runs of an earlier claim with the same nonce, as they were handed out.
    pub(crate) async fn repeat(
        &self,
        claim: &Claim,
        numbers: &[u16],
        now: Timestamp,
        buried: u32,
    ) -> Result<Claimed, Error> {
        let mut claimed = Claimed { now, buried, ..Claimed::default() };
        for lane in self.whole_lanes(numbers, "claim").await? {
            // Settled since, or taken by somebody else.
            if lane.token().nonce != claim.nonce || !lane.held {
                continue;
            }
            let mut found = self.members(lane.number, lane.members.clone()).await?;
            let entries: Vec<Entry> =
                lane.members.iter().filter_map(|id| found.remove(&shown(id))).map(entry).collect();
            // A message that is gone was deleted by hand, and a run never changes its length.
            if entries.len() == lane.run as usize && !entries.is_empty() {
                add(&mut claimed, run_of(&lane), entries);
            }
        }
        Ok(claimed)
    }

    async fn members(&self, lane: u16, ids: Vec<Bson>) -> Result<HashMap<String, Found>, Error> {
        let map = |failure| self.map(failure, "claim");
        let mut found = HashMap::with_capacity(ids.len());
        let finding = self.0.messages.find(members_of(lane, ids)).hint(by_document());
        let mut cursor = finding.await.map_err(map)?;
        while cursor.advance().await.map_err(map)? {
            let one = crate::layout::read(cursor.current().to_owned());
            found.insert(shown(&one.document_id), one);
        }
        Ok(found)
    }
}

/// Adds a run to what a claim hands out.
pub(crate) fn add(claimed: &mut Claimed, run: Run, entries: Vec<Entry>) {
    let start = u32::try_from(claimed.entries.len()).unwrap_or(u32::MAX);
    claimed.runs.push(Run { start, ..run });
    if claimed.entries.is_empty() {
        claimed.entries = entries;
    } else {
        claimed.entries.extend(entries);
    }
}

/// Ids of documents can be of any type, and few of the types can be compared or hashed.
pub(crate) fn shown(id: &Bson) -> String {
    id.to_string()
}

fn length_of(pick: &Pick) -> u32 {
    u32::try_from(pick.found.len()).unwrap_or(u32::MAX)
}

fn run_of(lane: &Lane) -> Run {
    Run {
        token: lane.token(),
        claimed_at: Timestamp::from_micros(lane.claimed_at),
        lease_until: Timestamp::from_micros(lane.until),
        start: 0,
        len: lane.run,
    }
}

fn entry(found: Found) -> Entry {
    Entry { content: found.content, attempts: found.attempts, strikes: found.strikes }
}
