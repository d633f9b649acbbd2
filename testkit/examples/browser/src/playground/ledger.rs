//! What became of every message, as the store answers and the broker sees it, and the events that tell of it.

use super::act::{Fate, KEYS, RELAYS};
use super::time::{Clock, to_millis};
use pillarbox_core::{
    Claim, Claimed, Content, HeadPolicy, MessageId, Outcome, Renewed, Settled, Settlement, Settlements,
    Timestamp, Token, Verdict,
};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ledger, as the world, the storage and the broker write into it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(super) fn new(clock: Arc<Clock>, head_policy: HeadPolicy) -> Self {
        Self(Arc::new(Mutex::new(Ledger { clock, head_policy, ..Ledger::default() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Ledger {
    clock: Arc<Clock>,
    head_policy: HeadPolicy,
    pub(super) messages: Vec<Fact>,
    numbers: HashMap<MessageId, usize>,
    /// What each relay believes that it holds.
    pub(super) hands: [Vec<Hand>; RELAYS],
    /// Whether each relay leaves the broker alone.
    pub(super) paused: [bool; RELAYS],
    events: Vec<Event>,
    /// The visitor wants the next answer to a report to be lost.
    pub(super) loses_answer: bool,
    /// Relays that a message has killed, and which.
    killed: Vec<(usize, usize)>,
    /// In the order of their first deliveries.
    pub(super) taken: Vec<usize>,
    /// First deliveries that came before an earlier one of their key.
    pub(super) disordered: u64,
}

/// One message.
pub(super) struct Fact {
    pub(super) id: MessageId,
    pub(super) key: usize,
    /// Its place in its key, from 1.
    pub(super) ordinal: u64,
    pub(super) fate: Fate,
    pub(super) stage: Stage,
    pub(super) deliveries: u64,
    pub(super) holder: Option<Holder>,
    strikes: u32,
    redriven: bool,
}

impl Fact {
    /// Whether sending it does harm.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.fate, Fate::Unroutable | Fate::Deadly)
    }
}

/// Where a message is, apart from what a claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a transaction that is not over.
    Open,
    RolledBack,
    Committed,
    Dead,
    Discarded,
    /// Settled at a time, in nanoseconds.
    Published(u64),
}

/// The claim that the store last gave on a message, live or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) relay: usize,
    pub(super) token: Token,
    pub(super) until: Timestamp,
}

/// A run in a relay's hand.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) token: Token,
    pub(super) messages: Vec<usize>,
}

/// Something to tell the visitor.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    /// In milliseconds.
    at: u64,
    /// The rule that it shows: its number in the documentation of the claim state machine.
    rule: Option<u8>,
    kind: Kind,
    text: String,
}

/// How an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// It happens to every message.
    Routine,
    /// Something went wrong, or was kept from going wrong.
    Notable,
    /// The visitor did it.
    Act,
    /// What must not be.
    Broken,
}

impl Ledger {
    pub(super) fn number(&self, id: MessageId) -> usize {
        // Every message of the world is in here before it is in the store.
        self.numbers.get(&id).copied().unwrap_or_default()
    }

    pub(super) fn fate(&self, message: usize) -> Fate {
        self.messages[message].fate
    }

    pub(super) fn label(&self, message: usize) -> String {
        let fact = &self.messages[message];
        format!("{}{}", KEYS[fact.key], fact.ordinal)
    }

    pub(super) fn labels(&self, messages: &[usize]) -> String {
        let labels: Vec<String> = messages.iter().map(|message| self.label(*message)).collect();
        match labels.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => labels.concat(),
        }
    }

    pub(super) fn tell(&mut self, kind: Kind, rule: u8, text: impl Into<String>) {
        self.note(Some(rule), kind, text.into());
    }

    /// Something that no rule of the claim state machine is about.
    pub(super) fn say(&mut self, kind: Kind, text: impl Into<String>) {
        self.note(None, kind, text.into());
    }

    fn note(&mut self, rule: Option<u8>, kind: Kind, text: String) {
        self.events.push(Event { at: to_millis(self.clock.now()), rule, kind, text });
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn take_killed(&mut self) -> Option<(usize, usize)> {
        self.killed.pop()
    }

    /// A transaction with a message has begun.
    pub(super) fn begin(&mut self, id: MessageId, key: usize, fate: Fate) -> usize {
        let ordinal = 1 + self.messages.iter().filter(|fact| fact.key == key).count() as u64;
        let number = self.messages.len();
        self.numbers.insert(id, number);
        let stage = Stage::Open;
        let (holder, strikes, redriven) = (None, 0, false);
        self.messages.push(Fact { id, key, ordinal, fate, stage, deliveries: 0, holder, strikes, redriven });
        number
    }

    pub(super) fn end(&mut self, message: usize) {
        let label = self.label(message);
        let fact = &mut self.messages[message];
        if fact.fate == Fate::RolledBack {
            fact.stage = Stage::RolledBack;
            self.say(
                Kind::Notable,
                format!("{label} is rolled back. Order and message are one transaction: neither exists."),
            );
        } else {
            fact.stage = Stage::Committed;
            let key = KEYS[fact.key];
            let text =
                format!("{label}: order and message are committed together. So key {key} has its order.");
            self.tell(Kind::Routine, 5, text);
        }
    }

    pub(super) fn chokes(&mut self, relay: usize, message: usize) {
        let text = format!("{} begins to send {}, and chokes on it.", name(relay), self.label(message));
        self.tell(Kind::Notable, 4, text);
    }

    pub(super) fn kill(&mut self, relay: usize, message: usize) {
        self.killed.push((relay, message));
    }

    /// A relay is gone: nobody believes anything in its place.
    pub(super) fn forget_hand(&mut self, relay: usize) {
        self.hands[relay].clear();
        self.paused[relay] = false;
    }

    pub(super) fn in_hand(&self, relay: usize) -> Vec<usize> {
        self.hands[relay].iter().flat_map(|hand| hand.messages.iter().copied()).collect()
    }

    pub(super) fn claimed(&mut self, relay: usize, claim: &Claim, claimed: &Claimed) {
        for run in &claimed.runs {
            if self.hands[relay].iter().any(|hand| hand.token == run.token) {
                continue;
            }
            let mut numbers = Vec::with_capacity(run.len as usize);
            let mut taken: [Vec<usize>; RELAYS] = Default::default();
            for entry in claimed.entries_of(run) {
                let Content::Message(message) = &entry.content else { continue };
                let number = self.number(message.id());
                numbers.push(number);
                let holder = Holder { relay, token: run.token, until: run.lease_until };
                let fact = &mut self.messages[number];
                let struck = entry.strikes > fact.strikes;
                fact.strikes = entry.strikes;
                if let Some(before) = fact.holder.replace(holder) {
                    taken[before.relay].push(number);
                }
                if struck {
                    let text = format!(
                        "{}: its relay died while it held this one alone. Strike {}.",
                        self.label(number),
                        entry.strikes
                    );
                    self.tell(Kind::Notable, 4, text);
                }
            }
            for (before, messages) in taken.iter().enumerate().filter(|(_, messages)| !messages.is_empty()) {
                let (labels, fence) = (self.labels(messages), run.token.fence);
                let text = if before == relay {
                    format!(
                        "The lease on {labels} ran out with no outcome. {} claims it again and raises the fence to {fence}.",
                        name(relay)
                    )
                } else {
                    format!(
                        "{}'s lease on {labels} ran out. {} takes over and raises the fence to {fence}.",
                        name(before),
                        name(relay)
                    )
                };
                self.tell(Kind::Notable, 3, text);
            }
            let labels = self.labels(&numbers);
            if claim.solo {
                let text = format!(
                    "{labels} is under suspicion: {} takes it alone, and holds nothing else.",
                    name(relay)
                );
                self.tell(Kind::Notable, 4, text);
            } else {
                let text =
                    format!("{} claims {labels} in one atomic step. Fence {}.", name(relay), run.token.fence);
                self.tell(Kind::Routine, 1, text);
            }
            self.hands[relay].push(Hand { token: run.token, messages: numbers });
        }
    }

    /// A claim has buried some of these dead letters, since they had reached the limit of strikes.
    pub(super) fn buried(&mut self, dead: &[usize]) {
        for message in dead
            .iter()
            .copied()
            .filter(|message| self.messages[*message].stage != Stage::Dead)
            .collect::<Vec<_>>()
        {
            self.messages[message].stage = Stage::Dead;
            self.messages[message].holder = None;
            let text =
                format!("{} has killed too many relays: the store itself buries it.", self.label(message));
            self.tell(Kind::Notable, 4, text);
        }
    }

    pub(super) fn renewed(&mut self, relay: usize, tokens: &[Token], answers: &[Renewed]) {
        for (token, answer) in tokens.iter().zip(answers) {
            let Some(place) = self.hands[relay].iter().position(|hand| hand.token == *token) else {
                continue;
            };
            let messages = self.hands[relay][place].messages.clone();
            let labels = self.labels(&messages);
            match (answer.outcome, answer.lease_until) {
                (Outcome::Applied, Some(until)) => {
                    for message in messages {
                        if let Some(holder) = &mut self.messages[message].holder
                            && holder.token == *token
                        {
                            holder.until = until;
                        }
                    }
                    self.tell(Kind::Routine, 3, format!("{} renews its lease on {labels}.", name(relay)));
                }
                (Outcome::Fenced, _) => {
                    self.hands[relay].remove(place);
                    self.fenced(relay, &messages, *token, "wants to renew its lease on");
                }
                _ => {}
            }
        }
    }

    /// Answers whether the relay never hears of it, and so believes on.
    pub(super) fn settled(&mut self, relay: usize, settlements: &Settlements, answers: &[Settled]) -> bool {
        let is_lost = std::mem::take(&mut self.loses_answer);
        for ((token, settlement), answer) in settlements.iter().zip(answers) {
            let Some(place) = self.hands[relay].iter().position(|hand| hand.token == token) else { continue };
            let messages = self.hands[relay][place].messages.clone();
            if !is_lost {
                self.hands[relay].remove(place);
            }
            match answer.outcome {
                Outcome::Applied => self.applied(relay, &messages, settlement),
                Outcome::AlreadyApplied => {
                    let text = format!(
                        "{} repeats its report on {}. The store knows it: the same answer, and nothing changes.",
                        name(relay),
                        self.labels(&messages)
                    );
                    self.tell(Kind::Notable, 9, text);
                }
                Outcome::Fenced => self.fenced(relay, &messages, token, "reports what became of"),
            }
        }
        if is_lost {
            let text = format!("The store's answer to {} is lost on the way.", name(relay));
            self.tell(Kind::Notable, 9, text);
        }
        is_lost
    }

    fn fenced(&mut self, relay: usize, messages: &[usize], token: Token, what: &str) {
        let labels = self.labels(messages);
        let text = format!(
            "{} {what} {labels} with fence {}. It is stale: fenced off, nothing changes.",
            name(relay),
            token.fence
        );
        self.tell(Kind::Notable, 3, text);
    }

    fn applied(&mut self, relay: usize, messages: &[usize], settlement: Settlement<'_>) {
        for message in messages {
            self.messages[*message].holder = None;
        }
        let Settlement::Verdicts(verdicts) = settlement else {
            let text = format!(
                "{} hands {} back untouched. Nothing is charged.",
                name(relay),
                self.labels(messages)
            );
            self.tell(Kind::Notable, 4, text);
            return;
        };
        let (mut published, mut behind, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (message, verdict) in messages.iter().copied().zip(verdicts) {
            match verdict {
                Verdict::Published => {
                    self.messages[message].stage = Stage::Published(self.clock.now());
                    published.push(message);
                }
                Verdict::Retry { after, error } => {
                    let text = format!(
                        "{} failed: {}. The store counts the attempt; the next is due in {:.1} s.",
                        self.label(message),
                        reason(error),
                        after.as_secs_f64()
                    );
                    self.tell(Kind::Notable, 4, text);
                }
                Verdict::Release { after } if after.is_zero() => behind.push(message),
                Verdict::Release { .. } => waiting.push(message),
                Verdict::Bury { reason: why } => {
                    self.messages[message].stage = Stage::Dead;
                    let text = format!(
                        "{} is dead: {}. {}",
                        self.label(message),
                        reason(why),
                        match self.head_policy {
                            HeadPolicy::Continue => "Policy Continue: its key goes on without it.",
                            HeadPolicy::Block => "Policy Block: its key waits until somebody decides.",
                        }
                    );
                    self.tell(Kind::Notable, 6, text);
                }
            }
        }
        if !published.is_empty() {
            let text = format!(
                "{} settles {}: confirmed, and so out of the outbox.",
                name(relay),
                self.labels(&published)
            );
            self.tell(Kind::Routine, 8, text);
        }
        if !waiting.is_empty() {
            let text = format!(
                "{} gives {} back until the broker answers. Nothing is charged.",
                name(relay),
                self.labels(&waiting)
            );
            self.tell(Kind::Notable, 4, text);
        }
        if !behind.is_empty() {
            let text = format!(
                "{} gives {} back, unsent: the order of the key is kept.",
                name(relay),
                self.labels(&behind)
            );
            self.tell(Kind::Notable, 5, text);
        }
    }

    /// The broker has taken a message.
    pub(super) fn delivered(&mut self, message: usize, relay: usize) {
        let label = self.label(message);
        self.messages[message].deliveries += 1;
        let deliveries = self.messages[message].deliveries;
        if deliveries > 1 {
            let text =
                format!("{label} reaches the broker again ({deliveries} times). Same id: consumers drop it.");
            self.tell(Kind::Notable, 10, text);
            return;
        }
        self.taken.push(message);
        let fact = &self.messages[message];
        // What was redriven counts as new under `Continue`, and keeps its place under `Block`.
        let blocks = self.head_policy == HeadPolicy::Block;
        let before = self.messages.iter().filter(|other| {
            let holds = match other.stage {
                Stage::Committed => blocks || !other.redriven,
                Stage::Dead => blocks,
                _ => false,
            };
            holds && other.key == fact.key && other.ordinal < fact.ordinal && other.deliveries == 0
        });
        if before.count() > 0 && (blocks || !fact.redriven) {
            self.disordered += 1;
            self.tell(Kind::Broken, 5, format!("{label} came before an earlier message of its key."));
        } else {
            self.tell(Kind::Routine, 5, format!("The broker has {label}, in order, from {}.", name(relay)));
        }
    }

    pub(super) fn redriven(&mut self, message: usize) {
        let fact = &mut self.messages[message];
        (fact.stage, fact.fate, fact.strikes, fact.redriven) = (Stage::Committed, Fate::Fine, 0, true);
    }

    /// Whether every message whose transaction was committed is in the store, was delivered, or was discarded by the
    /// visitor. `stored` says what the store lists, `claimed` how many it says to be claimed.
    pub(super) fn lost(&self, stored: &[usize], claimed: u64) -> u64 {
        let unlisted = self.messages.iter().enumerate().filter(|(number, fact)| {
            let was_committed = !matches!(fact.stage, Stage::Open | Stage::RolledBack | Stage::Discarded);
            was_committed && fact.deliveries == 0 && !stored.contains(number)
        });
        // Those that are claimed are not listed. The store's number is believed, not the relays'.
        let (held, gone): (Vec<_>, Vec<_>) = unlisted.partition(|(_, fact)| fact.holder.is_some());
        gone.len() as u64 + (held.len() as u64).saturating_sub(claimed)
    }
}

pub(super) fn name(relay: usize) -> String {
    format!("Relay {}", relay + 1)
}

/// What an error says, without what was being done.
fn reason(report: &str) -> &str {
    report.split_once(": ").map_or(report, |(_, reason)| reason)
}
