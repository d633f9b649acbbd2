//! The service: its customers, and the transactions that they cause.

use super::act::{Fate, KEYS};
use super::ledger::Shared;
use super::time::{Clock, Random, from_millis, nanos};
use pillarbox_core::{Message, MessageId};
use pillarbox_memory::{MemoryStorage, MemoryTransaction};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a transaction is open.
const OPEN: u64 = from_millis(700);
/// Customers go elsewhere while so many messages wait.
const BACKLOG: usize = 14;

pub(super) struct Orders {
    storage: MemoryStorage,
    ledger: Shared,
    seed: u64,
    random: Random,
    /// When the next customer comes.
    next: Option<u64>,
    open: VecDeque<Open>,
    /// The rows of the service's own table.
    rows: Arc<AtomicU64>,
}

struct Open {
    ends: u64,
    message: usize,
    transaction: MemoryTransaction,
    rolls_back: bool,
}

impl Orders {
    pub(super) fn new(storage: MemoryStorage, ledger: Shared, seed: u64) -> Self {
        let random = Random::new(seed, 1);
        let next = Some(from_millis(300));
        Self { storage, ledger, seed, random, next, open: VecDeque::new(), rows: Arc::default() }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn customers_come(&self) -> bool {
        self.next.is_some()
    }

    /// When something happens here next.
    pub(super) fn next(&self) -> Option<u64> {
        self.next.into_iter().chain(self.open.front().map(|open| open.ends)).min()
    }

    pub(super) fn let_customers_come(&mut self, now: u64, come: bool) {
        if come != self.customers_come() {
            self.next = come.then(|| now + from_millis(200));
        }
    }

    /// Begins a transaction with a row of the service's own and a message.
    pub(super) fn order(&mut self, clock: &Clock, key: usize, fate: Fate) {
        let number = self.ledger.lock().messages.len() as u64;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.seed.to_be_bytes());
        id[8..].copy_from_slice(&number.to_be_bytes());
        let message = Message::given(MessageId::from_bytes(id), clock.store_time(), "orders.changed")
            .key(KEYS[key].to_string())
            .payload(format!(r#"{{"order":"{}","change":{number}}}"#, KEYS[key]));
        let Ok(message) = message else { return };
        let mut transaction = self.storage.transaction();
        let rows = Arc::clone(&self.rows);
        transaction.stage(move || {
            rows.fetch_add(1, Ordering::Relaxed);
        });
        let id = message.id();
        if transaction.append(&[message]).is_ok() {
            let message = self.ledger.lock().begin(id, key, fate);
            let (ends, rolls_back) = (clock.now() + OPEN, fate == Fate::RolledBack);
            self.open.push_back(Open { ends, message, transaction, rolls_back });
        }
    }

    /// Does what is due.
    pub(super) fn go_on(&mut self, clock: &Clock, backlog: usize) {
        let now = clock.now();
        while self.open.front().is_some_and(|open| open.ends <= now)
            && let Some(Open { message, transaction, rolls_back, .. }) = self.open.pop_front()
        {
            if rolls_back {
                transaction.rollback();
            } else {
                transaction.commit();
            }
            self.ledger.lock().end(message);
        }
        if self.next.is_some_and(|next| next <= now) {
            self.next = Some(now + nanos(self.random.between(500, 1_400)));
            let key = usize::try_from(self.random.draw() % KEYS.len() as u64).unwrap_or_default();
            let fate = if self.random.draw().is_multiple_of(9) { Fate::RolledBack } else { Fate::Fine };
            if backlog < BACKLOG {
                self.order(clock, key, fate);
            }
        }
    }
}
