//! Solo claims: one suspect, alone.

use crate::MongoStorage;
use crate::assemble::Pick;
use crate::claim::View;
use crate::gather::Gathered;
use crate::layout::{Found, PARKED};
use crate::questions::Park;
use pillarbox_core::Error;
use std::collections::{HashMap, HashSet};

impl MongoStorage {
    /// Chooses the first suspect whose key lets it go.
    pub(crate) async fn gather_suspect(&self, view: &mut View) -> Result<Gathered, Error> {
        let now = view.now;
        let flagged: HashMap<u16, i64> = view
            .lanes
            .iter()
            .filter(|lane| lane.is_free(now) && lane.suspects)
            .map(|lane| (lane.number, lane.version))
            .collect();
        let mut gathered = Gathered::default();
        if flagged.is_empty() {
            return Ok(gathered);
        }
        let suspects = self.suspects(&mut view.session, &flagged).await?;
        let keys: Vec<&str> = suspects.iter().filter_map(|found| found.key.as_deref()).collect();
        let parks = self.parks_of(&mut view.session, &keys).await?;
        let mut go = self.that_may_go(view, suspects, &parks).await?.into_iter();
        if let Some(found) = go.next()
            && let Some(version) = flagged.get(&found.lane)
        {
            let keys = found.key.iter().filter(|_| found.at == PARKED).map(ToString::to_string).collect();
            let (lane, version) = (found.lane, *version);
            gathered.picks.push(Pick { lane, version, keys, found: vec![found], diverted: Vec::new() });
        }
        gathered.suspects = u32::try_from(go.len()).unwrap_or(u32::MAX);
        Ok(gathered)
    }

    /// Those suspects that could be handed out now: of a key the first one only, and only if nothing that waits is before it.
    pub(crate) async fn that_may_go(
        &self,
        view: &mut View,
        mut suspects: Vec<Found>,
        parks: &HashMap<String, Park>,
    ) -> Result<Vec<Found>, Error> {
        let now = view.now.as_micros();
        suspects.sort_by_key(|found| found.seq);
        let mut seen = HashSet::new();
        suspects.retain(|found| found.key.clone().is_none_or(|key| seen.insert(key)));
        let mut go = Vec::with_capacity(suspects.len());
        for found in suspects {
            let park = found.key.as_deref().and_then(|key| Some((key, parks.get(key)?)));
            let goes = match (park, found.at) {
                (None, PARKED) => false,
                (None, at) => at <= now,
                (Some((_, park)), _) if park.until == i64::MAX => false,
                (Some((key, park)), at) => {
                    let first = self.behind(&mut view.session, found.lane, key, 1).await?;
                    match (first.first(), at) {
                        (Some(first), PARKED) => {
                            first.document_id == found.document_id && first.wait <= now && park.until <= now
                        }
                        (None, PARKED) => false,
                        (first, _) => first.is_none_or(|first| first.seq > found.seq),
                    }
                }
            };
            if goes {
                go.push(found);
            }
        }
        Ok(go)
    }
}
