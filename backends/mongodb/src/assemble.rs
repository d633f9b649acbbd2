//! Puts what was read together into runs, one for each lane.

use crate::layout::Found;
use crate::questions::Park;
use crate::storage::MAX_RUN;
use mongodb::bson::Bson;
use pillarbox_core::Text;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a claim takes of one lane.
pub(crate) struct Pick {
    pub(crate) lane: u16,
    pub(crate) version: i64,
    /// The run, in order.
    pub(crate) found: Vec<Found>,
    /// The parked keys that the run has messages of.
    pub(crate) keys: Vec<String>,
    /// Messages whose key is parked, to be moved out of the way.
    pub(crate) diverted: Vec<Bson>,
}

/// The messages of one parked key that are due.
pub(crate) struct Group {
    pub(crate) key: String,
    pub(crate) lane: u16,
    pub(crate) found: Vec<Found>,
    /// Whether that is all that is parked of the key.
    pub(crate) whole: bool,
}

/// Keys with a suspect, and the place of the first one of each.
pub(crate) type Barred = HashMap<Text, (u32, u32)>;

pub(crate) fn barred(suspects: &[Found]) -> Barred {
    let mut barred = Barred::new();
    for found in suspects {
        if let Some(key) = &found.key {
            let first = barred.entry(key.clone()).or_insert(found.seq);
            *first = found.seq.min(*first);
        }
    }
    barred
}

/// Puts the messages of each lane into one run, in order.
pub(crate) fn assemble(
    groups: Vec<Group>,
    waiting: Vec<Found>,
    ready: Vec<Found>,
    parks: &HashMap<String, Park>,
    barred: &Barred,
    versions: &HashMap<u16, i64>,
) -> (Vec<Pick>, bool) {
    let mut lanes: BTreeMap<u16, Building> = BTreeMap::new();
    let mut drained = HashSet::new();
    for group in groups {
        let lane = lanes.entry(group.lane).or_default();
        let mut taken_all = group.whole;
        for found in group.found {
            taken_all &= lane.add(found);
        }
        if taken_all {
            drained.insert(group.key.clone());
        }
        lane.keys.push(group.key);
    }
    for found in waiting {
        lanes.entry(found.lane).or_default().add(found);
    }
    for found in ready {
        let lane = lanes.entry(found.lane).or_default();
        match found.key.as_deref() {
            // An earlier message of its key goes alone, and first.
            Some(key) if barred.contains_key(key) => {}
            Some(key) if parks.contains_key(key) && !drained.contains(key) => {
                lane.diverted.push(found.document_id);
            }
            _ => {
                lane.add(found);
            }
        }
    }
    let mut picks = Vec::with_capacity(lanes.len());
    let mut diverts = false;
    for (lane, building) in lanes {
        let Some(version) = versions.get(&lane) else { continue };
        let Building { found, keys, diverted, .. } = building;
        diverts |= !diverted.is_empty();
        if !found.is_empty() || !diverted.is_empty() {
            picks.push(Pick { lane, version: *version, found, keys, diverted });
        }
    }
    (picks, diverts)
}

/// A run that is being put together.
#[derive(Default)]
struct Building {
    found: Vec<Found>,
    keys: Vec<String>,
    diverted: Vec<Bson>,
    /// The smallest `limit` in the run.
    limit: Option<u32>,
    /// A message did not fit, so that nothing may follow it.
    full: bool,
}

impl Building {
    /// Adds a message, unless the run would be longer than it, or one before it, may be part of.
    fn add(&mut self, found: Found) -> bool {
        let limit = self.limit.unwrap_or(MAX_RUN).min(found.limit);
        if self.full || found.is_suspect() || self.found.len() as u64 >= u64::from(limit) {
            self.full = true;
            return false;
        }
        self.limit = Some(limit);
        self.found.push(found);
        true
    }
}
