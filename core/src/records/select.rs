use super::{Due, StoredRecord};
use crate::{HeadPolicy, State, Text, Timestamp};
use std::collections::HashSet;

impl Due {
    /// Chooses, of all records that are stored, in order of their positions, the first `limit` that may be claimed at `now`.
    ///
    /// Looks at every record twice: for stores that hold what fits into memory, and as the specification for others.
    pub fn select<'a>(
        records: impl Iterator<Item = &'a StoredRecord> + Clone,
        now: Timestamp,
        limit: u32,
        head_policy: HeadPolicy,
    ) -> Self {
        let held: HashSet<&Text> = records
            .clone()
            .filter(|stored| holds_its_key(stored, now, head_policy))
            .filter_map(StoredRecord::key)
            .collect();
        let mut due = Self { now, ..Self::default() };
        let mut wait_for = |at: Timestamp| due.next_due = Some(due.next_due.map_or(at, |next| next.min(at)));
        for stored in records {
            match stored.record.state {
                State::Claimed(lease) if lease.until > now => wait_for(lease.until),
                State::Pending if stored.record.due_at > now => wait_for(stored.record.due_at),
                State::Published | State::Dead => {}
                State::Claimed(_) | State::Pending => {
                    let held = stored.key().is_some_and(|key| held.contains(key));
                    if !held && due.records.len() < limit as usize {
                        due.records.push(stored.clone());
                    }
                }
            }
        }
        due
    }
}

/// Whether later messages of the key have to wait for this one, which cannot be claimed itself.
fn holds_its_key(stored: &StoredRecord, now: Timestamp, head_policy: HeadPolicy) -> bool {
    match stored.record.state {
        State::Claimed(lease) => lease.until > now,
        // A message that waits for its first due time has not joined its key.
        State::Pending => stored.record.due_at > now && !stored.record.is_scheduled(now),
        State::Dead => head_policy == HeadPolicy::Block,
        State::Published => false,
    }
}
