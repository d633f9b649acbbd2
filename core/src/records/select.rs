use super::{Due, StoredRecord};
use crate::{HeadPolicy, State, Text, Timestamp};
use std::collections::{HashMap, HashSet};

impl Due {
    /// Chooses, of all records that are stored, in order of their positions, `limit` that may be claimed at `now`: those that
    /// have been due for longest, so that messages which fail again and again do not keep others from their turn.
    ///
    /// Looks at every record: for stores that hold what fits into memory, and as the specification for others.
    pub fn select<'a>(
        records: impl Iterator<Item = &'a StoredRecord> + Clone,
        now: Timestamp,
        limit: u32,
        head_policy: HeadPolicy,
    ) -> Self {
        let keys = Keys::of(records.clone(), now, head_policy);
        let mut due = Self { now, ..Self::default() };
        let mut wait_for = |at: Timestamp| due.next_due = Some(due.next_due.map_or(at, |next| next.min(at)));
        // Of each key the time since when its first message has been due, and that message's position.
        let mut turns: HashMap<&Text, (Timestamp, u64)> = HashMap::new();
        let mut found = Vec::new();
        for stored in records {
            match stored.record.state {
                State::Claimed(lease) if lease.until > now => wait_for(lease.until),
                State::Pending if stored.record.due_at > now => wait_for(stored.record.due_at),
                State::Published | State::Dead => {}
                State::Claimed(_) | State::Pending => {
                    let own = (stored.record.due_at, stored.position);
                    match stored.key() {
                        None => found.push((own, stored)),
                        Some(key) if keys.let_go(key, stored) => {
                            found.push((*turns.entry(key).or_insert(own), stored));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        found.sort_by_key(|(turn, stored)| (*turn, stored.position));
        found.truncate(limit as usize);
        due.records = found.into_iter().map(|(_, stored)| stored.clone()).collect();
        due.records.sort_by_key(|stored| stored.position);
        due
    }
}

/// What the stored messages of each key say about the others.
struct Keys<'a> {
    /// Keys with a message that is claimed, waits for its retry, or is dead and blocks.
    held: HashSet<&'a Text>,
    /// Of each key, the time when a scheduled message has joined it, behind messages that are still there. Such a message
    /// waits for the next claim, and later ones wait with it.
    joined_behind: HashMap<&'a Text, Timestamp>,
}

impl<'a> Keys<'a> {
    fn of(
        records: impl Iterator<Item = &'a StoredRecord> + Clone,
        now: Timestamp,
        head_policy: HeadPolicy,
    ) -> Self {
        let keyed = records.filter_map(|stored| stored.key().map(|key| (key, stored)));
        let held = keyed
            .clone()
            .filter(|(_, stored)| holds_its_key(stored, now, head_policy))
            .map(|(key, _)| key)
            .collect();
        // Since when each key has had a message that is still there. One that was claimed before is its head.
        let mut since: HashMap<&Text, Timestamp> = HashMap::new();
        for (key, stored) in keyed.clone().filter(|(_, stored)| !was_scheduled(stored) && is_live(stored)) {
            let joined =
                if stored.record.fence > 0 { Timestamp::from_micros(i64::MIN) } else { stored.record.due_at };
            since.entry(key).and_modify(|since| *since = (*since).min(joined)).or_insert(joined);
        }
        let mut joined_behind: HashMap<&Text, Timestamp> = HashMap::new();
        for (key, stored) in keyed.filter(|(_, stored)| was_scheduled(stored) && stored.record.due_at <= now)
        {
            let joined = stored.record.due_at;
            if since.get(key).is_some_and(|since| *since <= joined) {
                joined_behind.entry(key).and_modify(|first| *first = (*first).min(joined)).or_insert(joined);
            }
        }
        Self { held, joined_behind }
    }

    fn let_go(&self, key: &Text, stored: &StoredRecord) -> bool {
        let waits = |joined: &Timestamp| {
            stored.record.fence == 0
                && if was_scheduled(stored) {
                    stored.record.due_at >= *joined
                } else {
                    stored.record.due_at > *joined
                }
        };
        !self.held.contains(key) && !self.joined_behind.get(key).is_some_and(waits)
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

/// Whether it had a time of delivery and was never claimed: it joins its key when it falls due.
fn was_scheduled(stored: &StoredRecord) -> bool {
    let scheduled = match &stored.content {
        crate::Content::Message(message) => message.deliver_at() == Some(stored.record.due_at),
        crate::Content::Undecodable(_) => false,
    };
    scheduled && stored.record.fence == 0 && stored.record.state == State::Pending
}

fn is_live(stored: &StoredRecord) -> bool {
    matches!(stored.record.state, State::Pending | State::Claimed(_))
}
