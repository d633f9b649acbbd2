//! The outbox behind the lock. What may happen to a message is decided by [`step`](pillarbox_core::step); what stands
//! here is who is next, kept in indexes so that no call looks at the whole backlog.
//!
//! Each waiting message or key stands in exactly one place: `ready`, `suspects`, `waiting` for a time, held by a run,
//! or, for a key, blocked by its dead head.

mod claim;
mod dead;
mod keys;
mod settle;
mod settled;
mod slab;

use keys::{Key, Place};
use pillarbox_core::{
    Content, Message, MessageId, Nonce, Record, Stats, StorageGuarantees, Text, Timestamp, Token, Undecodable,
};
use settled::SettledTokens;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How many messages one call moves from `waiting` at most, so that a million that fall due at once hold nobody up long.
const PROMOTED: u32 = 4_096;

#[derive(Debug)]
pub(crate) struct Outbox {
    guarantees: StorageGuarantees,
    keep_published: bool,
    now: Timestamp,
    /// The last number given; numbers order messages and deaths, and name and fence runs.
    number: u64,
    messages: Slab<Stored>,
    ids: HashMap<MessageId, u32>,
    keys: Slab<Key>,
    keys_by_name: HashMap<Text, u32>,
    /// Due, in order of arrival.
    ready: VecDeque<Work>,
    /// Due, for solo claims.
    suspects: VecDeque<Work>,
    /// Not due yet.
    waiting: BTreeSet<(Timestamp, u64, Work)>,
    runs: HashMap<u64, RunState>,
    leases: BTreeSet<(Timestamp, u64)>,
    runs_by_nonce: HashMap<Nonce, Vec<u64>>,
    settled: SettledTokens,
    /// Dead letters in order of their deaths.
    dead: BTreeMap<u64, u32>,
    /// Kept published messages in order of their settlements.
    published: VecDeque<u32>,
    claimed: u64,
    /// Single messages in `waiting`.
    scheduled: u64,
    /// Messages in the queues of keys that wait or are blocked.
    parked: u64,
}

/// A message and what is known of it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) content: Content,
    pub(crate) record: Record,
    /// Its key, once it has joined it.
    key: Option<u32>,
    number: u64,
    /// Why it was retried or died.
    pub(crate) reason: Option<Text>,
    /// When it was published or died.
    pub(crate) ended_at: Option<Timestamp>,
}

/// What can be next: a message without a key, or the head of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Message(u32),
    Key(u32),
}

#[derive(Debug)]
struct RunState {
    token: Token,
    claimed_at: Timestamp,
    until: Timestamp,
    messages: Vec<u32>,
}

impl Outbox {
    pub(crate) fn new(guarantees: StorageGuarantees, keep_published: bool) -> Self {
        Self {
            guarantees,
            keep_published,
            now: Timestamp::EPOCH,
            number: 0,
            messages: Slab::new(),
            ids: HashMap::new(),
            keys: Slab::new(),
            keys_by_name: HashMap::new(),
            ready: VecDeque::new(),
            suspects: VecDeque::new(),
            waiting: BTreeSet::new(),
            runs: HashMap::new(),
            leases: BTreeSet::new(),
            runs_by_nonce: HashMap::new(),
            settled: SettledTokens::default(),
            dead: BTreeMap::new(),
            published: VecDeque::new(),
            claimed: 0,
            scheduled: 0,
            parked: 0,
        }
    }

    /// The store's time: it never steps back.
    pub(crate) fn read_clock(&mut self, clock: Timestamp) -> Timestamp {
        self.now = self.now.max(clock);
        self.now
    }

    pub(crate) fn enqueue(&mut self, message: Message, now: Timestamp) {
        if self.ids.contains_key(&message.id()) {
            return;
        }
        let due_at = message.deliver_at().map_or(now, |time| time.max(now));
        let id = message.id();
        let place = self.store(Content::Message(message), due_at);
        self.ids.insert(id, place);
        self.admit(place, now);
    }

    pub(crate) fn enqueue_undecodable(&mut self, record: Undecodable, now: Timestamp) {
        let place = self.store(Content::Undecodable(record), now);
        self.admit(place, now);
    }

    pub(crate) fn stats(&mut self, now: Timestamp) -> Stats {
        self.promote(now);
        let first = [self.ready.front(), self.suspects.front()].into_iter().flatten();
        let oldest = first.map(|work| self.messages[self.head(*work)].record.due_at).min();
        let (dead, published) = (self.dead.len() as u64, self.published.len() as u64);
        let scheduled = self.scheduled + self.parked;
        Stats {
            pending: self.messages.len() as u64 - self.claimed - dead - published - scheduled,
            scheduled,
            claimed: self.claimed,
            dead,
            published,
            oldest_due_age: oldest.map(|due_at| now.since(due_at)),
        }
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<&Stored> {
        self.ids.get(&id).map(|place| &self.messages[*place])
    }

    /// The messages at places from `from` on, and where the next page begins.
    pub(crate) fn page(&self, from: u32, places: u32) -> (impl Iterator<Item = (u32, &Stored)>, Option<u32>) {
        let end = from.saturating_add(places).min(self.messages.places());
        let found = (from..end).filter_map(|place| Some((place, self.messages.value(place)?)));
        (found, (end < self.messages.places()).then_some(end))
    }

    /// Whether a message waits for a time, or for a message of its key that does.
    pub(crate) fn is_waiting(&self, stored: &Stored, now: Timestamp) -> bool {
        stored.record.due_at > now
            || stored
                .key
                .is_some_and(|key| matches!(self.keys[key].place, Place::Waiting(_) | Place::Blocked(_)))
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn store(&mut self, content: Content, due_at: Timestamp) -> u32 {
        let number = self.next_number();
        let record = Record::pending(due_at);
        self.messages.insert(Stored { content, record, key: None, number, reason: None, ended_at: None })
    }

    fn remove(&mut self, place: u32) {
        if let Some(stored) = self.messages.remove(place)
            && let Content::Message(message) = stored.content
        {
            self.ids.remove(&message.id());
        }
    }

    /// A new message, or one that has fallen due: it joins its key, or stands alone. A keyed one that is not due yet waits
    /// outside its key and blocks nobody.
    fn admit(&mut self, place: u32, now: Timestamp) {
        let stored = &self.messages[place];
        let key = match &stored.content {
            Content::Message(message) if stored.record.due_at <= now => message.key().cloned(),
            _ => None,
        };
        match key {
            Some(name) => self.join(place, name, now),
            None => self.offer(Work::Message(place), now, false),
        }
    }

    /// The message that stands first.
    fn head(&self, work: Work) -> u32 {
        match work {
            Work::Message(place) => place,
            Work::Key(key) => *self.keys[key].queue.front().expect("an empty key is no work"),
        }
    }

    /// Puts work where it belongs by the record of its head.
    fn offer(&mut self, work: Work, now: Timestamp, in_front: bool) {
        let head = &self.messages[self.head(work)];
        let (due_at, number, is_suspect) = (head.record.due_at, head.number, head.record.is_suspect());
        if due_at > now {
            self.waiting.insert((due_at, number, work));
            match work {
                Work::Message(_) => self.scheduled += 1,
                Work::Key(key) => self.set_place(key, Place::Waiting(due_at)),
            }
            return;
        }
        if let Work::Key(key) = work {
            self.set_place(key, Place::Ready);
        }
        let list = if is_suspect { &mut self.suspects } else { &mut self.ready };
        if in_front { list.push_front(work) } else { list.push_back(work) }
    }

    /// Moves what has fallen due.
    fn promote(&mut self, now: Timestamp) {
        for _ in 0..PROMOTED {
            match self.waiting.first() {
                Some(first) if first.0 <= now => {}
                _ => return,
            }
            if let Some((_, _, work)) = self.waiting.pop_first() {
                match work {
                    Work::Message(place) => {
                        self.scheduled -= 1;
                        self.admit(place, now);
                    }
                    Work::Key(key) => self.offer(Work::Key(key), now, false),
                }
            }
        }
    }
}
