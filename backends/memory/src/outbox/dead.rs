//! Dead letters, listings and what is kept.

use super::{Item, KeyState, Letter, Outbox, Slot};
use pillarbox_core::{
    Affected, Command, Cursor, Error, ErrorKind, Filter, ListState, Listing, MessageId, Page, State, Stored,
    Text, Timestamp, Transition, step,
};
use std::ops::Bound;
use std::time::Duration;

/// What to do with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mending {
    Redrive,
    Discard,
}

/// How many messages a page looks at when its filter matches few.
const LOOKED_AT: usize = 10_000;

impl Outbox {
    pub(crate) fn find(&self, id: MessageId) -> Option<Stored> {
        self.findable.get(&id).map(|slot| self.show(*slot))
    }

    pub(crate) fn mend(
        &mut self,
        mending: Mending,
        filter: &Filter,
        limit: u32,
        dry_run: bool,
        now: Timestamp,
    ) -> Affected {
        let mut matching =
            self.dead.iter().filter(|(_, slot)| filter.is_all() || filter.matches(&self.show(**slot)));
        let chosen: Vec<(u64, Slot)> =
            matching.by_ref().take(limit as usize).map(|(place, slot)| (*place, *slot)).collect();
        let more = matching.next().is_some();
        let count = chosen.len() as u64;
        if !dry_run {
            for (place, slot) in chosen {
                self.dead.remove(&place);
                let letter = self.letter(slot);
                let (id, key) = (letter.message.id(), letter.message.key().cloned());
                self.findable.remove(&id);
                let held_by_it = |state: &KeyState| state.blocked_by == Some(slot);
                let head = key.filter(|key| self.keys.get(key).is_some_and(held_by_it));
                match mending {
                    Mending::Redrive => self.redrive(slot, head, now),
                    Mending::Discard => {
                        self.remove(slot);
                        self.unblock(head, None, now);
                    }
                }
            }
            self.listeners.hint();
        }
        Affected { count, more }
    }

    fn redrive(&mut self, slot: Slot, head: Option<Text>, now: Timestamp) {
        let max_strikes = self.max_strikes;
        let letter = self.letter_mut(slot);
        if let Ok(Transition::Redriven(record)) = step(&letter.record, &Command::Redrive, now, max_strikes) {
            *letter = Letter { record, reason: None, died_at: None, message: letter.message.clone() };
        }
        if head.is_some() {
            self.unblock(head, Some(slot), now);
        } else {
            self.join(slot, now);
        }
    }

    /// Lets a key go on that a dead letter held, with that message at its head again if it was redriven.
    fn unblock(&mut self, key: Option<Text>, head: Option<Slot>, now: Timestamp) {
        let Some(key) = key else { return };
        self.unplace_key(&key, super::keys::KeyStage::New);
        let state = self.key_entry(key.clone());
        state.blocked_by = None;
        if let Some(slot) = head {
            state.queue.push_front(slot);
        }
        self.place_key(&key, now, false);
    }

    pub(crate) fn page(&self, listing: &Listing, now: Timestamp) -> Result<Page, Error> {
        let limit = listing.limit.clamp(1, 1_000) as usize;
        match listing.state {
            ListState::Dead => {
                let from = place(listing.cursor.as_ref(), 1)?.map(|parts| parts[0]);
                let from = from.map_or(Bound::Unbounded, Bound::Excluded);
                let found =
                    self.dead.range((from, Bound::Unbounded)).map(|(place, slot)| (place.to_string(), *slot));
                Ok(self.gather(found, &listing.filter, limit))
            }
            ListState::Scheduled => {
                let from = place(listing.cursor.as_ref(), 2)?;
                let from = from.map(|parts| {
                    (Timestamp::from_micros(i64::try_from(parts[0]).unwrap_or(i64::MAX)), parts[1])
                });
                let from = from.map_or(Bound::Unbounded, Bound::Excluded);
                let found = self.later.range((from, Bound::Unbounded)).filter_map(|((due, place), item)| {
                    let slot = match item {
                        Item::Message(slot) => Some(*slot),
                        Item::Key(key) => self.keys.get(key).and_then(KeyState::head),
                    };
                    slot.map(|slot| (format!("{}-{place}", due.as_micros()), slot))
                });
                Ok(self.gather(found, &listing.filter, limit))
            }
            ListState::Pending if !listing.filter.is_all() => {
                Err(Error::new(ErrorKind::Misconfigured, "list")
                    .describe("pending messages cannot be filtered; list them without a filter")
                    .not_applied())
            }
            ListState::Pending => {
                let skip = place(listing.cursor.as_ref(), 1)?.map_or(0, |parts| parts[0]);
                let due = |slot: &Slot| {
                    let record = self.letter(*slot).record;
                    record.state == State::Pending && record.due_at <= now
                };
                let found = self.ready.iter().chain(&self.suspects).flat_map(|item| match item {
                    Item::Message(slot) => vec![*slot],
                    Item::Key(key) => self
                        .keys
                        .get(key)
                        .map_or_else(Vec::new, |state| state.queue.iter().copied().collect()),
                });
                let found = found.filter(due).zip(1_u64..).skip(usize::try_from(skip).unwrap_or(usize::MAX));
                Ok(self.gather(found.map(|(slot, place)| (place.to_string(), slot)), &listing.filter, limit))
            }
        }
    }

    fn gather(&self, found: impl Iterator<Item = (String, Slot)>, filter: &Filter, limit: usize) -> Page {
        let mut page = Page::default();
        for (looked_at, (place, slot)) in found.enumerate() {
            let stored = self.show(slot);
            if filter.matches(&stored) {
                page.messages.push(stored);
            }
            if page.messages.len() == limit || looked_at + 1 == LOOKED_AT {
                page.next = Some(Cursor(Text::from(place)));
                break;
            }
        }
        page
    }

    pub(crate) fn purge(&mut self, older_than: Duration, limit: u32, now: Timestamp) -> u64 {
        let before = now.before(older_than);
        let mut purged = 0;
        while purged < u64::from(limit)
            && let Some((_, slot)) = self.published.front().copied().filter(|(at, _)| *at < before)
        {
            self.published.pop_front();
            self.remove(slot);
            purged += 1;
        }
        purged
    }
}

/// The parts of a cursor that one of our pages gave.
fn place(cursor: Option<&Cursor>, parts: usize) -> Result<Option<Vec<u64>>, Error> {
    let Some(Cursor(text)) = cursor else { return Ok(None) };
    let numbers: Vec<u64> = text.split('-').filter_map(|part| part.parse().ok()).collect();
    if numbers.len() != parts {
        return Err(Error::new(ErrorKind::Misconfigured, "list")
            .describe("the cursor is not one that a page of this listing gave")
            .not_applied());
    }
    Ok(Some(numbers))
}
