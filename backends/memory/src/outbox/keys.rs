//! Messages with an ordering key.

use super::{Outbox, Work};
use pillarbox_core::{Text, Timestamp};
use std::collections::VecDeque;

/// The messages of one key that wait, in order. A key that nobody waits in is forgotten.
#[derive(Debug)]
pub(super) struct Key {
    name: Text,
    pub(super) queue: VecDeque<u32>,
    pub(super) place: Place,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In `ready` or `suspects`.
    Ready,
    /// In `waiting`, until its head is due.
    Waiting(Timestamp),
    /// Held by a run; those of its messages that are in the run are not in the queue.
    Held,
    /// By its dead head, which lies at this place.
    Blocked(u32),
}

impl Place {
    const fn is_parked(self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Blocked(_))
    }
}

impl Outbox {
    /// Adds a message behind the others of its key.
    pub(super) fn join(&mut self, place: u32, name: Text, now: Timestamp) {
        if let Some(&key) = self.keys_by_name.get(&name) {
            self.messages[place].key = Some(key);
            let joined = &mut self.keys[key];
            joined.queue.push_back(place);
            self.parked += u64::from(joined.place.is_parked());
            return;
        }
        let queue = VecDeque::from([place]);
        let key = self.keys.insert(Key { name: name.clone(), queue, place: Place::Held });
        self.keys_by_name.insert(name, key);
        self.messages[place].key = Some(key);
        self.offer(Work::Key(key), now, false);
    }

    /// Puts a message back in front of the others of its key, which is held.
    pub(super) fn put_back(&mut self, place: u32, key: u32) {
        self.keys[key].queue.push_front(place);
    }

    /// Lets go of a key that a run has held.
    pub(super) fn free_key(&mut self, key: u32, now: Timestamp, in_front: bool) {
        if self.keys[key].queue.is_empty() {
            if let Some(key) = self.keys.remove(key) {
                self.keys_by_name.remove(&key.name);
            }
            return;
        }
        self.offer(Work::Key(key), now, in_front);
    }

    pub(super) fn set_place(&mut self, key: u32, place: Place) {
        let key = &mut self.keys[key];
        let waiting = key.queue.len() as u64;
        if key.place.is_parked() {
            self.parked -= waiting;
        }
        if place.is_parked() {
            self.parked += waiting;
        }
        key.place = place;
    }
}
