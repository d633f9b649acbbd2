//! Ordering keys: one queue each, in one place at a time.

use super::{Item, Outbox, Slot};
use pillarbox_core::{Text, Timestamp};
use std::collections::VecDeque;

/// One ordering key with messages that are not settled.
#[derive(Debug)]
pub(crate) struct KeyState {
    pub(super) queue: VecDeque<Slot>,
    pub(super) stage: KeyStage,
    /// Held by this dead letter, under the policy `Block`.
    pub(super) blocked_by: Option<Slot>,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyStage {
    /// Nowhere yet.
    New,
    /// In `ready`.
    Ready,
    /// In `suspects`.
    Suspect,
    /// In `later`, or blocked.
    Waiting,
    /// Part of a run.
    Claimed,
}

impl KeyState {
    pub(super) fn head(&self) -> Option<Slot> {
        self.queue.front().copied()
    }
}

impl Outbox {
    pub(super) fn push_to_key(&mut self, key: Text, slot: Slot, now: Timestamp) {
        let state = self.key_entry(key.clone());
        state.queue.push_back(slot);
        match state.stage {
            KeyStage::New => self.place_key(&key, now, false),
            KeyStage::Waiting => self.waiting += 1,
            KeyStage::Ready | KeyStage::Suspect | KeyStage::Claimed => {}
        }
    }

    /// Puts messages that come back in front of their key's others, in order.
    pub(super) fn return_to_key(&mut self, key: &Text, slot: Slot) {
        self.key_entry(key.clone()).queue.push_front(slot);
    }

    pub(super) fn key_entry(&mut self, key: Text) -> &mut KeyState {
        self.keys.entry(key).or_insert_with(|| KeyState {
            queue: VecDeque::new(),
            stage: KeyStage::New,
            blocked_by: None,
        })
    }

    /// Puts a key that is in no place where its head belongs, or forgets it if it is empty.
    pub(super) fn place_key(&mut self, key: &Text, now: Timestamp, in_front: bool) {
        let Some(state) = self.keys.get_mut(key) else { return };
        if state.stage == KeyStage::Waiting {
            self.waiting -= state.queue.len() as u64;
        }
        let item = Item::Key(key.clone());
        let Some(head) = state.head() else {
            if state.blocked_by.is_none() {
                self.keys.remove(key);
            } else {
                state.stage = KeyStage::Waiting;
            }
            return;
        };
        let (blocked, length) = (state.blocked_by.is_some(), state.queue.len() as u64);
        let record = self.letter(head).record;
        let stage = if blocked {
            self.waiting += length;
            KeyStage::Waiting
        } else if record.due_at > now {
            self.waiting += length;
            self.wait_until(record.due_at, item);
            KeyStage::Waiting
        } else if record.is_suspect() {
            self.suspects.push_back(item);
            KeyStage::Suspect
        } else {
            if in_front {
                self.ready.push_front(item);
            } else {
                self.ready.push_back(item);
            }
            KeyStage::Ready
        };
        self.key_entry(key.clone()).stage = stage;
    }

    /// Takes the key out of the waiting ones' count, for a run or for a change of its queue.
    pub(super) fn unplace_key(&mut self, key: &Text, stage: KeyStage) {
        if let Some(state) = self.keys.get_mut(key) {
            if state.stage == KeyStage::Waiting {
                self.waiting -= state.queue.len() as u64;
            }
            state.stage = stage;
        }
    }
}
