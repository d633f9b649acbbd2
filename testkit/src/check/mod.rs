//! Judges a [`History`]: which rules it breaks, what became of the messages, and what it has shown at all.
//!
//! Only readings of one clock are compared: leases and due times with the store's answers, orders with the order of the
//! records. A call that was dropped inside the store may or may not have had its effect; the rules leave its messages alone.

mod claims;
mod ending;
mod model;
mod quick;
mod rules;
mod settlements;
mod situations;
mod totals;

pub use rules::{Rule, Rules, Violation};
pub use situations::Situations;
pub use totals::Totals;

use crate::fault::{Fault, Operation};
use crate::history::{Event, History};
use model::{Model, Standing};

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The rules that are broken, in order. The first says most: others may follow from it.
    pub violations: Vec<Violation>,
    /// What became of the messages.
    pub totals: Totals,
    /// What the run has shown.
    pub situations: Situations,
}

/// Holds `history` against `rules`.
pub fn check(history: &History, rules: Rules) -> Checked {
    let mut checker = Checker {
        history,
        rules,
        model: Model::new(history),
        record: 0,
        checked: Checked::default(),
        has_spun: false,
    };
    for (place, record) in history.records.iter().enumerate() {
        checker.record = place;
        checker.take(record.by, &record.event);
    }
    checker.record = history.records.len();
    checker.end();
    checker.checked
}

struct Checker<'a> {
    history: &'a History,
    rules: Rules,
    model: Model,
    record: usize,
    checked: Checked,
    has_spun: bool,
}

impl Checker<'_> {
    /// Notes a violation of `rule`, if it is checked.
    fn violate(&mut self, rule: Rule, message: Option<u32>, words: impl FnOnce() -> String) {
        if self.rules.has(rule) {
            let words = words();
            self.checked.violations.push(Violation { rule, record: self.record, message, words });
        }
    }

    fn take(&mut self, by: u16, event: &Event) {
        match event {
            Event::Claimed(seen) => self.on_claimed(by, seen),
            Event::Renewed { began, lease, answers } => self.on_renewed(*began, *lease, answers),
            Event::Settled { began, answers } => self.on_settled(*began, answers),
            Event::Abandoned { tokens, .. } => self.model.abandon(tokens),
            Event::Delivered { message, intact } => self.on_delivered(*message, *intact),
            Event::Disturbed { message } => self.model.messages[*message as usize].is_disturbed = true,
            Event::Ended { allowed: false } => {
                self.violate(Rule::Running, None, || format!("relay {by} ended, and nobody had asked it to"));
            }
            Event::Spun => {
                self.has_spun = true;
                self.violate(Rule::Spinning, None, || "thousands of polls at one instant".to_owned());
            }
            Event::Redriven { message } => self.on_redriven(*message),
            Event::Discarded { message } => self.model.messages[*message as usize].is_discarded = true,
            Event::Crashed => {
                self.checked.situations.crashed_holding += u64::from(self.model.holds_anything(by));
            }
            _ => self.on_producer(event),
        }
        self.count(event);
    }

    fn on_producer(&mut self, event: &Event) {
        let place = u32::try_from(self.record).unwrap_or(u32::MAX);
        match event {
            Event::Enqueued { transaction, message } => self.model.enqueue(*transaction, *message, place),
            Event::CommitBegan { transaction } => self.model.commit_began(*transaction),
            Event::CommitEnded { transaction, acknowledged } => {
                let is_late = self.model.commit_ended(*transaction, *acknowledged, place);
                self.checked.situations.committed_late += u64::from(is_late);
            }
            _ => {}
        }
    }

    fn on_redriven(&mut self, number: u32) {
        if !self.model.may_be_dead(number) {
            self.violate(Rule::Burial, Some(number), || {
                "it was found dead, and neither a verdict nor its strikes had buried it".to_owned()
            });
        }
        self.model.redrive(number);
    }

    fn on_delivered(&mut self, number: Option<u32>, intact: bool) {
        let Some(number) = number else {
            self.checked.totals.unexpected += 1;
            self.violate(Rule::Unexpected, None, || "a message was delivered that nobody planned".to_owned());
            return;
        };
        if !intact {
            self.violate(Rule::Changed, Some(number), || {
                "it arrived with another content than it was enqueued with".to_owned()
            });
        }
        let message = &self.model.messages[number as usize];
        if !message.was_committed {
            self.checked.totals.unexpected += 1;
            self.violate(Rule::Unexpected, Some(number), || {
                "it was delivered and never committed".to_owned()
            });
        } else if message.deliveries > 0 {
            let explained = message.is_disturbed
                || message.claims > 1
                || message.copies > 1
                || message.was_redriven
                || message.is_doubtful;
            if !explained {
                self.violate(Rule::Duplicate, Some(number), || {
                    "it was delivered again under its only claim, and nothing had disturbed its publish"
                        .to_owned()
                });
            }
        } else {
            self.check_first_delivery(number);
        }
        self.model.messages[number as usize].deliveries += 1;
    }

    /// Everything that precedes a message in its key is delivered before, or dead.
    fn check_first_delivery(&mut self, number: u32) {
        let overtaken = self.model.others_of_key(number).find(|other| {
            let before = &self.model.messages[*other as usize];
            before.deliveries == 0 && !self.model.may_be_dead(*other) && self.model.precedes(*other, number)
        });
        if let Some(other) = overtaken {
            self.violate(Rule::Order, Some(number), || {
                format!("it was delivered before m{other}, which precedes it in its key")
            });
        }
    }

    /// Counts what the run has shown.
    fn count(&mut self, event: &Event) {
        let seen = &mut self.checked.situations;
        match event {
            Event::RolledBack { .. } => seen.rolled_back += 1,
            Event::LateEffect => seen.landed_late += 1,
            Event::Crashed => seen.crashed += 1,
            Event::Stopped => seen.stopped += 1,
            Event::Ended { allowed: true } => seen.refused_at_start += 1,
            Event::Paused { micros } if u128::from(*micros) > self.history.terms.lease.as_micros() => {
                seen.stood_still += 1;
            }
            Event::ClockJumped { .. } => seen.clock_jumped += 1,
            Event::Partitioned { .. } => seen.partitioned += 1,
            Event::Slowed { .. } => seen.slowed += 1,
            Event::Redriven { .. } => seen.redriven += 1,
            Event::Discarded { .. } => seen.discarded += 1,
            Event::Purged { count } => seen.purged += count,
            Event::Injected { operation: Operation::Hint, .. } => seen.hint_lost += 1,
            Event::Injected { fault: Fault::HangBefore | Fault::HangAfter, .. } => seen.hung += 1,
            Event::Injected { operation: Operation::Publish, fault: Fault::Part(..) } => {
                seen.published_in_part += 1;
            }
            _ => {}
        }
    }

    fn standing(&self, message: u32) -> Standing {
        self.model.messages[message as usize].standing
    }
}
