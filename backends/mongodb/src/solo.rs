//! Solo claims: one suspect, alone.

use crate::MongoStorage;
use crate::claim::View;
use crate::gather::{Gathered, Pick, can_go};
use crate::layout::PARKED;
use mongodb::bson::doc;
use pillarbox_core::Error;
use std::collections::HashMap;

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
        let mut gathered = Gathered { picks: Vec::new(), suspects: 0, again: false };
        if flagged.is_empty() {
            return Ok(gathered);
        }
        let suspects = self.suspects(&mut view.session, &flagged).await?;
        let keys: Vec<&str> = suspects.iter().filter_map(|found| found.key.as_deref()).collect();
        let count = i64::try_from(keys.len()).unwrap_or(i64::MAX).max(1);
        let parks = self.read_parks(&mut view.session, doc! { "_id": { "$in": keys } }, count).await?;
        // Of a key the first one only: the others wait for it.
        let mut seen = std::collections::HashSet::new();
        for found in suspects {
            let is_first = found.key.clone().is_none_or(|key| seen.insert(key));
            let mut goes = is_first && can_go(&found, &parks, now);
            if goes && found.at == PARKED {
                let key = found.key.as_deref().unwrap_or_default();
                let first = self.behind(&mut view.session, key, 1).await?;
                goes = first.first().is_some_and(|first| {
                    first.document_id == found.document_id && first.wait <= now.as_micros()
                });
            }
            if !goes {
                continue;
            }
            if gathered.picks.is_empty()
                && let Some(version) = flagged.get(&found.lane)
            {
                let keys = found.key.iter().filter(|_| found.at == PARKED).map(ToString::to_string).collect();
                gathered.picks.push(Pick {
                    lane: found.lane,
                    version: *version,
                    keys,
                    found: vec![found],
                    diverted: Vec::new(),
                });
            } else {
                gathered.suspects += 1;
            }
        }
        Ok(gathered)
    }
}
