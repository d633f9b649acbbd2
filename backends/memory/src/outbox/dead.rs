//! Dead letters, and published messages that are kept.

use super::keys::Place;
use super::{Outbox, Stored};
use pillarbox_core::{Command, HeadPolicy, Text, Timestamp, step};
use std::time::Duration;

impl Outbox {
    /// Makes a dead letter of a message whose record says so. Under `Block` its key, which is held, waits for it.
    pub(super) fn lay_to_rest(&mut self, place: u32, reason: Text, now: Timestamp) {
        let number = self.next_number();
        let letter = &mut self.messages[place];
        letter.reason = Some(reason);
        letter.ended_at = Some(now);
        letter.number = number;
        self.dead.insert(number, place);
        if let Some(key) = letter.key {
            match self.guarantees.head_policy {
                HeadPolicy::Block => self.set_place(key, Place::Blocked(place)),
                HeadPolicy::Continue => letter.key = None,
            }
        }
    }

    /// Dead letters in order of their deaths, from `from` on.
    pub(crate) fn dead_letters(&self, from: u64) -> impl Iterator<Item = (u64, &Stored)> {
        self.dead.range(from..).map(|(number, place)| (*number, &self.messages[*place]))
    }

    /// Makes a dead letter pending again.
    pub(crate) fn redrive(&mut self, number: u64, now: Timestamp) {
        let Some(place) = self.dead.remove(&number) else { return };
        let letter = &mut self.messages[place];
        if let Ok(transition) = step(&letter.record, &Command::Redrive, now, self.guarantees.max_strikes)
            && let Some(record) = transition.record()
        {
            letter.record = *record;
        }
        letter.reason = None;
        letter.ended_at = None;
        match letter.key {
            Some(key) => {
                self.set_place(key, Place::Held);
                self.put_back(place, key);
                self.free_key(key, now, true);
            }
            None => {
                let number = self.next_number();
                self.messages[place].number = number;
                self.admit(place, now);
            }
        }
    }

    /// Removes a dead letter for good.
    pub(crate) fn discard(&mut self, number: u64, now: Timestamp) {
        let Some(place) = self.dead.remove(&number) else { return };
        let key = self.messages[place].key;
        self.remove(place);
        if let Some(key) = key {
            self.set_place(key, Place::Held);
            self.free_key(key, now, false);
        }
    }

    /// Removes kept published messages that were settled longer ago than `older_than`.
    pub(crate) fn purge(&mut self, older_than: Duration, limit: u32, now: Timestamp) -> u64 {
        let mut purged = 0;
        while purged < u64::from(limit)
            && let Some(&place) = self.published.front()
            && self.messages[place].ended_at.is_some_and(|ended| ended.after(older_than) < now)
        {
            self.published.pop_front();
            self.remove(place);
            purged += 1;
        }
        purged
    }
}
