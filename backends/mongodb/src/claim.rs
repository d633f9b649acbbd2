//! Handing out runs: one snapshot to choose from, then one command that takes the lanes.

use crate::MongoStorage;
use crate::gather::Gathered;
use crate::lanes::{Lane, nonce};
use crate::questions::{PARKED_KEYS, Park, park};
use crate::take::add;
use futures_util::future::join;
use mongodb::ClientSession;
use mongodb::bson::doc;
use mongodb::bson::raw::RawDocumentBuf;
use pillarbox_core::{Claim, Claimed, Error, ErrorKind, Nonce, Timestamp};
use std::collections::{HashMap, HashSet};

/// How often a claim chooses again, since other relays were faster, or since it had to tidy up first.
const TRIES: u32 = 24;

/// What a claim chooses from: one snapshot of what the majority has.
pub(crate) struct View {
    pub(crate) session: ClientSession,
    /// All lanes, without what their runs hold.
    pub(crate) lanes: Vec<Lane>,
    /// The parked keys of all lanes; `None` where there are too many to read.
    pub(crate) parks: Option<HashMap<String, Park>>,
    pub(crate) now: Timestamp,
}

impl View {
    /// Whom lanes are held for.
    fn holders(&self) -> HashSet<Nonce> {
        self.lanes.iter().filter(|lane| lane.held).map(|lane| lane.token().nonce).collect()
    }
}

impl MongoStorage {
    pub(crate) async fn claim_runs(&self, claim: &Claim) -> Result<Claimed, Error> {
        let mut buried = 0;
        // No more than a claim hands out, so that a backlog of scheduled messages holds nobody up.
        let mut promoted = 0;
        let mut now = Timestamp::EPOCH;
        let mut stuck = HashSet::new();
        for _ in 0..TRIES {
            let mut turn = self.0.turns.begin().await;
            if let Some(nothing) = turn.nothing(&claim.nonce).filter(|_| !claim.solo && claim.limit > 0) {
                return Ok(Claimed { buried, ..nothing });
            }
            let mut view = self.look().await?;
            now = view.now;
            if claim.limit == 0 {
                return Ok(Claimed { now, ..Claimed::default() });
            }
            let is_repeated =
                |lane: &&Lane| lane.held && lane.token().nonce == claim.nonce && lane.is_live(now);
            let repeated: Vec<u16> = view.lanes.iter().filter(is_repeated).map(|lane| lane.number).collect();
            if !repeated.is_empty() {
                return self.repeat(claim, &repeated, now, buried).await;
            }
            let expired: Vec<u16> = view
                .lanes
                .iter()
                .filter(|lane| lane.is_busy() && !lane.is_live(now) && !stuck.contains(&lane.number))
                .map(|lane| lane.number)
                .collect();
            if !expired.is_empty() {
                let reaped = self.reap(&expired, now).await?;
                buried += reaped.buried;
                stuck.extend(reaped.stuck);
                continue;
            }
            let gathered = if claim.solo {
                self.gather_suspect(&mut view).await?
            } else {
                let promotes = promoted < claim.limit as usize;
                self.gather(&mut view, claim, promotes, &turn.elsewhere).await?
            };
            let Gathered { picks, suspects, again, promoted: moved, left_out } = gathered;
            promoted += moved;
            // Whatever another one asks for, it would find no more.
            let nothing = picks.is_empty() && !again && !left_out && promoted == 0 && stuck.is_empty();
            if nothing && !claim.solo {
                let next_due = self.next_due(&mut view).await?;
                let claimed = Claimed { now, next_due, suspects, ..Claimed::default() };
                turn.found_nothing(&claimed, view.holders());
                let next_due = if turn.is_outdated() { Some(now) } else { next_due };
                return Ok(Claimed { buried, next_due, ..claimed });
            }
            turn.chosen(picks.iter().map(|pick| pick.lane));
            let any = !picks.is_empty();
            let chosen: usize = picks.iter().map(|pick| pick.found.len()).sum();
            let taking = self.take(picks, claim);
            let due = async {
                if chosen < claim.limit as usize { self.next_due(&mut view).await } else { Ok(None) }
            };
            let (taken, next_due) = join(taking, due).await;
            let mut claimed = Claimed { now, buried, suspects, ..Claimed::default() };
            for (run, entries) in taken? {
                claimed.now = claimed.now.max(run.claimed_at);
                add(&mut claimed, run, entries);
            }
            if claimed.runs.is_empty() && (any || again) {
                continue;
            }
            claimed.next_due = next_due?;
            // Others were faster at some lanes, or want them, or have just freed some: there may be more at once.
            let lost = claimed.entries.len() < chosen;
            if claimed.entries.len() < claim.limit as usize && (lost || left_out || turn.is_outdated()) {
                claimed.next_due = Some(claimed.now);
            }
            return Ok(claimed);
        }
        if self.holds_unconfirmed(claim).await? {
            return Err(Error::new(ErrorKind::Unavailable, "claim").describe(format!(
                "MongoDB at {}: an earlier try of this claim has taken lanes, and the majority has not confirmed it yet",
                self.0.place
            )));
        }
        // Whatever others were faster at is theirs; there may be more, so it is worth asking again at once.
        Ok(Claimed { now, buried, next_due: Some(now), ..Claimed::default() })
    }

    /// Begins a snapshot with the leases of all lanes and the server's time.
    pub(crate) async fn look(&self) -> Result<View, Error> {
        let map = |failure| self.map(failure, "claim");
        let mut session = self.0.client.start_session().snapshot(true).await.map_err(map)?;
        let pipeline = [
            doc! { "$match": { "_id": { "$gte": 0 } } },
            doc! { "$project": { "members": 0, "keys": 0, "settled_nonce": 0 } },
            doc! { "$addFields": { "now": "$$NOW" } },
            // In one question with the lanes: most claims need nothing else but the messages then.
            doc! { "$unionWith": { "coll": self.0.parked.name(), "pipeline": [
                { "$match": { "lane": { "$gte": 0 } } },
                { "$sort": { "lane": 1, "until": 1 } },
                { "$limit": PARKED_KEYS + 1 },
            ] } },
        ];
        let mut cursor = self
            .0
            .lanes
            .aggregate(pipeline)
            .with_type::<RawDocumentBuf>()
            .session(&mut session)
            .batch_size(1_000)
            .await
            .map_err(map)?;
        let mut lanes = Vec::with_capacity(usize::from(self.lanes()));
        let mut parks = HashMap::new();
        while let Some(document) = cursor.next(&mut session).await {
            let document = document.map_err(map)?;
            if let Some((key, park)) = park(&document) {
                parks.insert(key, park);
            } else {
                let lane = Lane::read(&document);
                lanes.push(lane.ok_or_else(|| foreign("a lane's document cannot be read"))?);
            }
        }
        let few = i64::try_from(parks.len()).is_ok_and(|count| count <= PARKED_KEYS);
        if lanes.len() != usize::from(self.lanes()) {
            return Err(foreign("its lanes are not those that it was opened with; open it again"));
        }
        lanes.sort_by_key(|lane| lane.number);
        let now = lanes.first().map_or(0, |lane| lane.now);
        let now = Timestamp::from_micros(now.saturating_add(self.0.config.clock_offset()));
        Ok(View { session, lanes, parks: few.then_some(parks), now })
    }

    /// Whether the primary has lanes for this claim's nonce that no snapshot shows: the answer of an earlier try was lost, and to
    /// answer "nothing" would strand them until their leases end.
    async fn holds_unconfirmed(&self, claim: &Claim) -> Result<bool, Error> {
        let filter = doc! { "_id": { "$gte": 0 }, "held": true, "nonce": nonce(&claim.nonce) };
        let found = self.0.lanes.find_one(filter).projection(doc! { "_id": 1 }).await;
        Ok(found.map_err(|failure| self.map(failure, "claim"))?.is_some())
    }

    /// The lanes of these numbers, with all that they have, and the server's time.
    pub(crate) async fn whole_lanes(
        &self,
        numbers: &[u16],
        operation: &'static str,
    ) -> Result<Vec<Lane>, Error> {
        let map = |failure| self.map(failure, operation);
        let numbers: Vec<i64> = numbers.iter().copied().map(i64::from).collect();
        let pipeline =
            [doc! { "$match": { "_id": { "$in": numbers } } }, doc! { "$addFields": { "now": "$$NOW" } }];
        let mut cursor = self.0.lanes.aggregate(pipeline).with_type::<RawDocumentBuf>().await.map_err(map)?;
        let mut lanes = Vec::new();
        while cursor.advance().await.map_err(map)? {
            lanes.extend(Lane::read(cursor.current()));
        }
        Ok(lanes)
    }
}

fn foreign(what: &'static str) -> Error {
    Error::new(ErrorKind::Misconfigured, "claim")
        .describe(format!("the outbox was changed while it was open: {what}"))
        .not_applied()
}
