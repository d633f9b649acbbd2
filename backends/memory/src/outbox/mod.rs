//! What is behind the lock: the messages, and where each of them waits.
//!
//! Every message that is not claimed or terminal is in exactly one place: a message without a key in `ready`, `later` or
//! `suspects`; a message with a key in its key's queue, and the key in one of those places. So a claim looks only at what it
//! hands out, however much is stored.

mod claim;
mod dead;
mod keys;
mod settle;

pub(crate) use dead::Mending;

use crate::MemoryConfig;
use crate::wakeup::Listeners;
use keys::KeyState;
use pillarbox_core::{
    Content, HeadPolicy, Message, MessageId, Nonce, Record, Stats, Stored, Text, Timestamp, Token,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Where a message is stored.
pub(crate) type Slot = u32;

/// What waits somewhere.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A message without a key, or one that has not joined its key yet.
    Message(Slot),
    /// A key with its queue.
    Key(Text),
}

/// A message with its record.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) record: Record,
    /// Why it is dead, or was last retried.
    pub(crate) reason: Option<Text>,
    pub(crate) died_at: Option<Timestamp>,
}

/// A claimed run.
#[derive(Debug)]
struct HeldRun {
    token: Token,
    until: Timestamp,
    members: Vec<Slot>,
    keys: Vec<Text>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    max_strikes: u32,
    head_policy: HeadPolicy,
    keep_published: bool,
    pub(crate) listeners: Listeners,
    letters: Vec<Option<Letter>>,
    free: Vec<Slot>,
    keys: HashMap<Text, KeyState>,
    ready: VecDeque<Item>,
    /// By the time when it is due, then in the order in which it came.
    later: BTreeMap<(Timestamp, u64), Item>,
    suspects: VecDeque<Item>,
    runs: HashMap<u64, HeldRun>,
    /// The runs by the end of their leases.
    ends: BTreeMap<(Timestamp, u64), ()>,
    nonces: HashMap<Nonce, Vec<u64>>,
    settled: Settled,
    dead: BTreeMap<u64, Slot>,
    published: VecDeque<(Timestamp, Slot)>,
    /// Dead and waiting messages, for looking one up.
    findable: HashMap<MessageId, Slot>,
    sequence: u64,
    fence: u64,
    claimed: u64,
    /// How many messages wait for a time or behind one that does.
    waiting: u64,
}

/// The tokens that were settled last, so that a repetition is told apart from a fence.
#[derive(Debug, Default)]
struct Settled {
    order: VecDeque<Token>,
    tokens: HashSet<Token>,
}

impl Settled {
    /// More than any relay repeats at once.
    const REMEMBERED: usize = 4_096;

    fn remember(&mut self, token: Token) {
        if self.tokens.insert(token) {
            self.order.push_back(token);
        }
        if self.order.len() > Self::REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
    }
}

impl Outbox {
    pub(crate) fn new(config: &MemoryConfig) -> Self {
        Self {
            max_strikes: config.max_strikes,
            head_policy: config.head_policy,
            keep_published: config.keep_published,
            listeners: Listeners::default(),
            letters: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            suspects: VecDeque::new(),
            runs: HashMap::new(),
            ends: BTreeMap::new(),
            nonces: HashMap::new(),
            settled: Settled::default(),
            dead: BTreeMap::new(),
            published: VecDeque::new(),
            findable: HashMap::new(),
            sequence: 0,
            fence: 0,
            claimed: 0,
            waiting: 0,
        }
    }

    /// Takes a committed message in.
    pub(crate) fn insert(&mut self, message: Message, now: Timestamp) {
        let due_at = message.deliver_at().unwrap_or(now);
        let letter = Letter { message, record: Record::pending(due_at), reason: None, died_at: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.letters[slot as usize] = Some(letter);
                slot
            }
            None => {
                self.letters.push(Some(letter));
                // Four thousand million messages do not fit into memory.
                Slot::try_from(self.letters.len() - 1).unwrap_or(Slot::MAX)
            }
        };
        if due_at > now {
            self.wait_until(due_at, Item::Message(slot));
        } else {
            self.join(slot, now);
        }
    }

    /// Puts a due message where it is claimed from: behind its key, or behind everything else.
    fn join(&mut self, slot: Slot, now: Timestamp) {
        match self.letter(slot).message.key().cloned() {
            None if self.letter(slot).record.is_suspect() => self.suspects.push_back(Item::Message(slot)),
            None => self.ready.push_back(Item::Message(slot)),
            Some(key) => self.push_to_key(key, slot, now),
        }
    }

    fn wait_until(&mut self, due_at: Timestamp, item: Item) -> (Timestamp, u64) {
        let place = (due_at, self.next_sequence());
        let first = match &item {
            Item::Message(slot) => {
                self.waiting += 1;
                Some(*slot)
            }
            Item::Key(key) => self.keys.get(key).and_then(KeyState::head),
        };
        if let Some(slot) = first {
            self.findable.insert(self.letter(slot).message.id(), slot);
        }
        self.later.insert(place, item);
        place
    }

    /// Moves what has fallen due to where it is claimed from; a bounded part of it at a time.
    fn promote(&mut self, now: Timestamp, at_most: u32) {
        for _ in 0..at_most {
            let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) else { return };
            match entry.remove() {
                Item::Message(slot) => {
                    self.waiting -= 1;
                    self.findable.remove(&self.letter(slot).message.id());
                    self.join(slot, now);
                }
                Item::Key(key) => {
                    if let Some(slot) = self.keys.get(&key).and_then(KeyState::head) {
                        self.findable.remove(&self.letter(slot).message.id());
                    }
                    self.place_key(&key, now, false);
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A slot that is named anywhere is in use.
    pub(crate) fn letter(&self, slot: Slot) -> &Letter {
        self.letters[slot as usize].as_ref().unwrap_or_else(|| unreachable!("slot {slot} is in use"))
    }

    fn letter_mut(&mut self, slot: Slot) -> &mut Letter {
        self.letters[slot as usize].as_mut().unwrap_or_else(|| unreachable!("slot {slot} is in use"))
    }

    fn remove(&mut self, slot: Slot) {
        self.letters[slot as usize] = None;
        self.free.push(slot);
    }

    pub(crate) fn stats(&self, now: Timestamp) -> Stats {
        let stored = (self.letters.len() - self.free.len()) as u64;
        let (dead, published) = (self.dead.len() as u64, self.published.len() as u64);
        let head = match self.ready.front() {
            Some(Item::Message(slot)) => Some(*slot),
            Some(Item::Key(key)) => self.keys.get(key).and_then(KeyState::head),
            None => None,
        };
        Stats {
            pending: stored - dead - published - self.claimed - self.waiting,
            scheduled: self.waiting,
            claimed: self.claimed,
            dead,
            published,
            oldest_due_age: head.map(|slot| now.since(self.letter(slot).record.due_at)),
        }
    }

    pub(crate) fn show(&self, slot: Slot) -> Stored {
        let letter = self.letter(slot);
        Stored {
            content: Content::Message(letter.message.clone()),
            attempts: letter.record.attempts,
            strikes: letter.record.strikes,
            due_at: letter.died_at.is_none().then_some(letter.record.due_at),
            died_at: letter.died_at,
            reason: letter.reason.clone(),
        }
    }
}
