//! Chooses what a claim hands out: which lanes, and which of their messages.

use crate::MongoStorage;
use crate::assemble::{Pick, assemble, barred};
use crate::claim::View;
use crate::lanes::Lane;
use crate::questions::Park;
use crate::storage::MAX_RUN;
use futures_util::future::try_join;
use pillarbox_core::{Claim, Error};
use std::collections::{HashMap, HashSet};

/// What was chosen.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) picks: Vec<Pick>,
    pub(crate) suspects: u32,
    /// Something was tidied up, so that choosing again may find more.
    pub(crate) again: bool,
    /// So many scheduled messages have moved to the tails of their keys.
    pub(crate) promoted: usize,
    /// Other claims of this handle want some of the lanes, so that more may be there than was chosen.
    pub(crate) left_out: bool,
}

impl MongoStorage {
    /// Chooses from what is due, and not from the lanes that others want (`elsewhere`). With `promotes` it first
    /// moves scheduled messages to the tails of their keys, if there are any.
    pub(crate) async fn gather(
        &self,
        view: &mut View,
        claim: &Claim,
        promotes: bool,
        elsewhere: &HashSet<u16>,
    ) -> Result<Gathered, Error> {
        let now = view.now;
        let mut free: Vec<&Lane> = view.lanes.iter().filter(|lane| lane.is_free(now)).collect();
        let left_out = free.iter().any(|lane| elsewhere.contains(&lane.number));
        free.retain(|lane| !elsewhere.contains(&lane.number));
        let versions: HashMap<u16, i64> = free.iter().map(|lane| (lane.number, lane.version)).collect();
        let mut numbers: Vec<i64> = free.iter().map(|lane| i64::from(lane.number)).collect();
        let flagged: HashMap<u16, i64> =
            free.iter().filter(|lane| lane.suspects).map(|lane| (lane.number, lane.version)).collect();
        if numbers.is_empty() {
            return Ok(Gathered { left_out, ..Gathered::default() });
        }
        // Relays begin at different lanes, so that they rarely want the same one, where more is to be expected than one claim takes. To
        // begin anywhere but at the first lane can cost a question more.
        let drawn = crc32fast::hash(claim.nonce.as_bytes())
            .wrapping_add(crc32fast::hash(&now.as_micros().to_be_bytes()));
        let drawn = usize::try_from(drawn).unwrap_or(0);
        if self.0.listening.is_busy() {
            let first = drawn % numbers.len();
            numbers.rotate_left(first);
        }

        let suspects =
            if flagged.is_empty() { Vec::new() } else { self.suspects(&mut view.session, &flagged).await? };
        let parks = view.parks.take().map(|mut parks| {
            parks.retain(|_, park| versions.contains_key(&park.lane));
            parks
        });
        let barred = barred(&suspects);

        let limit = claim.limit.min(MAX_RUN) as usize;
        // Mostly nothing has waited: then what is new is all that there is to hand out.
        let is_due = |park: &Park| park.until <= now.as_micros();
        if parks.as_ref().is_some_and(|parks| !parks.values().any(is_due)) {
            let mut beside = self.beside(view).await?;
            let waiting = self.waiting(&mut beside, now, &numbers, limit);
            let ready = self.ready(&mut view.session, &numbers, limit, &barred);
            let (waiting, ready) = try_join(waiting, ready).await?;
            if waiting.is_empty() {
                let parks = parks.unwrap_or_default();
                let suspects = count(self.that_may_go(view, suspects, &parks).await?.len());
                let (picks, again) = assemble(Vec::new(), waiting, ready, &parks, &barred, &versions);
                return Ok(Gathered { picks, suspects, again, promoted: 0, left_out });
            }
        }
        // What has waited, and what is new, share a claim: neither keeps the other from its turn.
        let share = if limit == 1 { drawn % 2 } else { limit / 2 };
        let mut groups = self.due_groups(view, &numbers, &parks, &barred, share).await?;
        let mut special: usize = groups.iter().map(|group| group.found.len()).sum();
        let mut waiting =
            self.waiting(&mut view.session, now, &numbers, share.saturating_sub(special)).await?;
        if promotes && waiting.iter().any(|found| found.key.is_some()) {
            let promoted = self.promote(&waiting, &versions).await?;
            return Ok(Gathered { again: true, promoted, ..Gathered::default() });
        }
        waiting.retain(|found| found.key.is_none());
        special += waiting.len();
        let ready = self.ready(&mut view.session, &numbers, limit - special, &barred).await?;
        if special + ready.len() < limit && special >= share {
            // The new ones leave room.
            let room = limit - ready.len();
            groups = self.due_groups(view, &numbers, &parks, &barred, room).await?;
            special = groups.iter().map(|group| group.found.len()).sum();
            waiting = self.waiting(&mut view.session, now, &numbers, room.saturating_sub(special)).await?;
            if promotes && waiting.iter().any(|found| found.key.is_some()) {
                let promoted = self.promote(&waiting, &versions).await?;
                return Ok(Gathered { again: true, promoted, ..Gathered::default() });
            }
            waiting.retain(|found| found.key.is_none());
        }
        let parked = self.parked_among(&mut view.session, parks, &ready).await?;
        let suspects = count(self.that_may_go(view, suspects, &parked).await?.len());
        let (picks, again) = assemble(groups, waiting, ready, &parked, &barred, &versions);
        Ok(Gathered { picks, suspects, again, promoted: 0, left_out })
    }
}

fn count(suspects: usize) -> u32 {
    u32::try_from(suspects).unwrap_or(u32::MAX)
}
