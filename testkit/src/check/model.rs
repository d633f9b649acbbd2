//! What the checker knows of each message and run, from the answers alone.

use super::quick::QuickMap;
use crate::history::{Event, History, Terms};
use pillarbox_core::{HeadPolicy, Nonce, Record, Text, Timestamp, Token};
use std::hash::BuildHasherDefault;
use std::time::Duration;

pub(super) struct Model {
    pub(super) terms: Terms,
    pub(super) messages: Vec<MessageModel>,
    pub(super) runs: Vec<RunModel>,
    /// The messages of all runs, run after run.
    held: Vec<u32>,
    by_token: QuickMap<Token, u32>,
    by_nonce: QuickMap<Nonce, Vec<u32>>,
    keys: Vec<(Text, Vec<u32>)>,
    transactions: QuickMap<u32, Vec<u32>>,
    /// The record at which each open transaction began, and the last record at which a committed one did.
    last_begun_of_committed: u32,
    begun: QuickMap<u32, u32>,
    /// When settlements reached the store that were answered only after something else: until their answer they may have
    /// had their effect.
    settling: QuickMap<Token, u32>,
    /// Calls overlapped inside the store, or were dropped there.
    pub(super) is_loose: bool,
    /// The latest time at which a claim was answered.
    pub(super) last_claim: Timestamp,
}

pub(super) struct MessageModel {
    key: Option<u16>,
    is_scheduled: bool,
    pub(super) is_refused: bool,
    /// In how many transactions it was enqueued.
    pub(super) copies: u32,
    transaction: u32,
    enqueued: u32,
    /// The record that acknowledged it.
    committed: Option<u32>,
    /// Its commit was asked for.
    pub(super) was_committed: bool,
    pub(super) standing: Standing,
    pub(super) holder: Option<u32>,
    pub(super) fence: u64,
    pub(super) attempts: u32,
    pub(super) strikes: u32,
    pub(super) run_limit: u32,
    pub(super) due_at: Timestamp,
    pub(super) claims: u32,
    pub(super) deliveries: u32,
    pub(super) is_disturbed: bool,
    pub(super) was_redriven: bool,
    /// It lost its place in its key: it was dead for a while.
    is_moved: bool,
    pub(super) is_discarded: bool,
    /// Nobody can tell what the store knows of it.
    pub(super) is_doubtful: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Published,
    Dead,
}

pub(super) struct RunModel {
    pub(super) token: Token,
    pub(super) by: u16,
    /// The record that answered it.
    pub(super) record: u32,
    pub(super) until: Timestamp,
    pub(super) solo: bool,
    pub(super) renewed: bool,
    pub(super) is_settled: bool,
    /// The record that answered its settlement.
    pub(super) settled: u32,
    pub(super) is_doubtful: bool,
    start: u32,
    pub(super) len: u32,
}

impl Model {
    pub(super) fn new(history: &History) -> Self {
        let mut keys: Vec<(Text, Vec<u32>)> = Vec::new();
        let mut messages = Vec::with_capacity(history.messages.len());
        for (number, planned) in history.messages.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let key = planned.message.key().map(|name| {
                let place = keys.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
                    keys.push((name.clone(), Vec::new()));
                    keys.len() - 1
                });
                keys[place].1.push(number);
                u16::try_from(place).unwrap_or(u16::MAX)
            });
            messages.push(MessageModel {
                key,
                is_scheduled: planned.message.deliver_at().is_some(),
                is_refused: planned.refused,
                copies: 0,
                transaction: 0,
                enqueued: 0,
                committed: None,
                was_committed: false,
                standing: Standing::Open,
                holder: None,
                fence: 0,
                attempts: 0,
                strikes: 0,
                run_limit: Record::UNLIMITED,
                due_at: planned.message.deliver_at().unwrap_or_default(),
                claims: 0,
                deliveries: 0,
                is_disturbed: false,
                was_redriven: false,
                is_moved: false,
                is_discarded: false,
                is_doubtful: false,
            });
        }
        let mut settling: QuickMap<Token, u32> = QuickMap::default();
        for (place, record) in history.records.iter().enumerate() {
            // The first call counts: later ones repeat it.
            let mut note = |token: &Token, began: u32| {
                let first = settling.entry(*token).or_insert(began);
                *first = (*first).min(began);
            };
            match &record.event {
                Event::Settled { began, answers } if (*began as usize) < place => {
                    answers.iter().for_each(|(token, ..)| note(token, *began));
                }
                Event::Abandoned { began, tokens } => tokens.iter().for_each(|token| note(token, *began)),
                _ => {}
            }
        }
        Self {
            terms: history.terms,
            messages,
            runs: Vec::with_capacity(64),
            held: Vec::with_capacity(128),
            by_token: QuickMap::with_capacity_and_hasher(64, BuildHasherDefault::default()),
            by_nonce: QuickMap::with_capacity_and_hasher(64, BuildHasherDefault::default()),
            keys,
            transactions: QuickMap::default(),
            last_begun_of_committed: 0,
            begun: QuickMap::default(),
            is_loose: !settling.is_empty(),
            settling,
            last_claim: Timestamp::EPOCH,
        }
    }

    pub(super) fn enqueue(&mut self, transaction: u32, number: u32, record: u32) {
        self.begun.entry(transaction).or_insert(record);
        self.transactions.entry(transaction).or_default().push(number);
        let message = &mut self.messages[number as usize];
        message.copies += 1;
        if message.copies == 1 {
            message.transaction = transaction;
            message.enqueued = record;
        } else {
            message.is_doubtful = true;
        }
    }

    pub(super) fn commit_began(&mut self, transaction: u32) {
        for number in self.transactions.get(&transaction).into_iter().flatten() {
            self.messages[*number as usize].was_committed = true;
        }
    }

    /// Answers whether one that began later had committed before.
    pub(super) fn commit_ended(&mut self, transaction: u32, acknowledged: bool, record: u32) -> bool {
        if acknowledged {
            for number in self.transactions.get(&transaction).into_iter().flatten() {
                self.messages[*number as usize].committed.get_or_insert(record);
            }
        }
        let Some(begun) = self.begun.get(&transaction) else { return false };
        let is_late = *begun < self.last_begun_of_committed;
        self.last_begun_of_committed = self.last_begun_of_committed.max(*begun);
        is_late
    }

    pub(super) fn is_acknowledged(&self, number: u32) -> bool {
        self.messages[number as usize].committed.is_some()
    }

    pub(super) fn redrive(&mut self, number: u32) {
        let policy = self.terms.head_policy;
        let message = &mut self.messages[number as usize];
        message.standing = Standing::Open;
        message.holder = None;
        (message.attempts, message.strikes, message.run_limit) = (0, 0, Record::UNLIMITED);
        message.due_at = Timestamp::EPOCH;
        message.was_redriven = true;
        message.is_moved |= policy == HeadPolicy::Continue;
    }

    pub(super) fn bury(&mut self, number: u32) {
        let policy = self.terms.head_policy;
        let message = &mut self.messages[number as usize];
        message.standing = Standing::Dead;
        message.holder = None;
        message.is_moved |= policy == HeadPolicy::Continue;
    }

    pub(super) fn abandon(&mut self, tokens: &[Token]) {
        self.is_loose = true;
        if tokens.is_empty() {
            // A claim: whatever it took is nobody's to know.
            self.messages.iter_mut().for_each(|message| message.is_doubtful = true);
        }
        for token in tokens {
            if let Some(run) = self.by_token.get(token).copied() {
                self.runs[run as usize].is_doubtful = true;
                for place in self.range(run) {
                    let message = self.held[place];
                    self.messages[message as usize].is_doubtful = true;
                }
            }
        }
    }

    pub(super) fn run_of(&self, token: &Token) -> Option<u32> {
        self.by_token.get(token).copied()
    }

    pub(super) fn runs_of(&self, nonce: &Nonce) -> &[u32] {
        self.by_nonce.get(nonce).map_or(&[], Vec::as_slice)
    }

    /// The messages of a run, in order.
    pub(super) fn messages_of(&self, run: u32) -> &[u32] {
        &self.held[self.range(run)]
    }

    fn range(&self, run: u32) -> std::ops::Range<usize> {
        let run = &self.runs[run as usize];
        run.start as usize..(run.start + run.len) as usize
    }

    pub(super) fn add_run(&mut self, mut run: RunModel, messages: impl Iterator<Item = u32>) -> u32 {
        run.start = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.held.extend(messages);
        run.len = u32::try_from(self.held.len()).unwrap_or(u32::MAX) - run.start;
        let number = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        self.by_token.insert(run.token, number);
        self.by_nonce.entry(run.token.nonce).or_default().push(number);
        self.runs.push(run);
        number
    }

    /// Whether a run is held by nobody else and not settled; it may have run out.
    pub(super) fn is_current(&self, run: u32) -> bool {
        !self.runs[run as usize].is_settled
            && self
                .messages_of(run)
                .iter()
                .all(|message| self.messages[*message as usize].holder == Some(run))
    }

    /// Whether a run covers its messages at `now`. One whose settlement is on its way may not any more.
    pub(super) fn is_live(&self, run: u32, now: Timestamp, record: u32) -> bool {
        let held = &self.runs[run as usize];
        !held.is_settled && held.until > now && !held.is_doubtful && !self.is_settling(run, record)
    }

    /// Whether a settlement of a run is inside the store: it may or may not have had its effect.
    pub(super) fn is_settling(&self, run: u32, record: u32) -> bool {
        let held = &self.runs[run as usize];
        !held.is_settled && self.settling.get(&held.token).is_some_and(|began| *began <= record)
    }

    pub(super) fn holds_anything(&self, by: u16) -> bool {
        self.messages.iter().any(|message| {
            message.holder.is_some_and(|run| {
                let run = &self.runs[run as usize];
                run.by == by && !run.is_settled
            })
        })
    }

    pub(super) fn others_of_key(&self, number: u32) -> impl Iterator<Item = u32> + use<'_> {
        let key = self.messages[number as usize].key;
        let all: &[u32] = key.map_or(&[], |key| &self.keys[usize::from(key)].1);
        all.iter().copied().filter(move |other| *other != number)
    }

    pub(super) fn has_key(&self, number: u32) -> bool {
        self.messages[number as usize].key.is_some()
    }

    /// Whether `first` comes before `second` in their key, in real time. One that is scheduled joins its key when it falls
    /// due, and one that was dead has lost its place.
    pub(super) fn precedes(&self, first: u32, second: u32) -> bool {
        let (a, b) = (&self.messages[first as usize], &self.messages[second as usize]);
        let takes_part = |message: &MessageModel| {
            !message.is_scheduled && !message.is_moved && message.copies == 1 && message.was_committed
        };
        takes_part(a)
            && takes_part(b)
            && if a.transaction == b.transaction {
                a.committed.is_some() && a.enqueued < b.enqueued
            } else {
                a.committed.is_some_and(|committed| committed < b.enqueued)
            }
    }

    /// Dead, or a claim may have buried it for its strikes.
    pub(super) fn may_be_dead(&self, number: u32) -> bool {
        let message = &self.messages[number as usize];
        message.standing == Standing::Dead || message.is_doubtful || self.is_struck_out(number, None)
    }

    /// Whether its last lease ran out by `now` (or ever may) and was the last strike.
    pub(super) fn is_struck_out(&self, number: u32, now: Option<Timestamp>) -> bool {
        let message = &self.messages[number as usize];
        message.standing == Standing::Open
            && message.holder.is_some_and(|run| {
                let run = &self.runs[run as usize];
                run.solo
                    && run.renewed
                    && !run.is_settled
                    && now.is_none_or(|now| run.until <= now)
                    && message.strikes + 1 >= self.terms.max_strikes
            })
    }

    /// Charges what a run that ended without an outcome costs its messages' next claim.
    pub(super) fn strike(&mut self, number: u32, run: u32) {
        let run = &self.runs[run as usize];
        let message = &mut self.messages[number as usize];
        message.strikes += u32::from(run.solo && run.renewed);
        message.run_limit = (run.len / 2).max(1);
        message.due_at = Timestamp::EPOCH;
        message.holder = None;
    }

    /// A message goes back, due after a delay.
    pub(super) fn give_back(&mut self, number: u32, at: Timestamp, after: Duration) {
        let message = &mut self.messages[number as usize];
        message.holder = None;
        message.due_at = at.after(after);
    }
}

impl RunModel {
    pub(super) fn new(token: Token, by: u16, record: u32, until: Timestamp, solo: bool) -> Self {
        Self {
            token,
            by,
            record,
            until,
            solo,
            renewed: false,
            is_settled: false,
            settled: 0,
            is_doubtful: false,
            start: 0,
            len: 0,
        }
    }
}
