use super::{Fault, FaultPlan, Injection, Operation};
use crate::choices::Choices;
use pillarbox_core::ErrorKind;
use std::time::Duration;

/// How often each fault strikes, in a thousand calls. The default is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rates {
    /// [`Fault::Refused`].
    pub refused: u16,
    /// [`Fault::FailBefore`].
    pub fail_before: u16,
    /// [`Fault::FailAfter`].
    pub fail_after: u16,
    /// [`Fault::Late`].
    pub late: u16,
    /// [`Fault::Duplicate`].
    pub duplicate: u16,
    /// [`Fault::HangBefore`] and [`Fault::HangAfter`], half each.
    pub hang: u16,
    /// [`Fault::PauseBefore`] and [`Fault::PauseAfter`], half each.
    pub pause: u16,
    /// [`Fault::Part`], for publishes.
    pub part: u16,
    /// Errors of a kind that a working store or broker never answers, as one in so many faults; 0 is never.
    pub odd_kinds: u16,
}

impl Rates {
    /// Every fault, `per_mille` times in a thousand calls each.
    pub const fn all(per_mille: u16) -> Self {
        Self {
            refused: per_mille,
            fail_before: per_mille,
            fail_after: per_mille,
            late: per_mille,
            duplicate: per_mille,
            hang: per_mille,
            pause: per_mille,
            part: per_mille,
            odd_kinds: 100,
        }
    }

    /// Each kind is on or off, as `choices` decide. A quarter of all seeds has everything on: most defects are found by
    /// many faults together, some only where one is missing.
    #[must_use]
    pub fn swarm(self, choices: &Choices, actor: u16) -> Self {
        if choices.below(actor, SITE_EVERYTHING, 4) == 3 {
            return self;
        }
        let pick = |rate: u16| if choices.happens(actor, SITE_SWARM, 500) { rate } else { 0 };
        Self {
            refused: pick(self.refused),
            fail_before: pick(self.fail_before),
            fail_after: pick(self.fail_after),
            late: pick(self.late),
            duplicate: pick(self.duplicate),
            hang: pick(self.hang),
            pause: pick(self.pause),
            part: pick(self.part),
            odd_kinds: pick(self.odd_kinds),
        }
    }
}

/// Faults that a seed decides, for one actor.
#[derive(Clone, Debug)]
pub struct SeededPlan {
    choices: Choices,
    actor: u16,
    rates: Rates,
    latency: Duration,
    patience: Duration,
}

impl SeededPlan {
    /// Faults for `actor` at these rates. Requests and replies take up to 2 ms, pauses and late effects up to 3 s.
    pub fn new(choices: Choices, actor: u16, rates: Rates) -> Self {
        let (latency, patience) = (Duration::from_millis(2), Duration::from_secs(3));
        Self { choices, actor, rates, latency, patience }
    }

    /// How long a request or a reply takes at most.
    #[must_use]
    pub const fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// How long a pause, or the way of a late effect, is at most. Only what is longer than a lease makes zombies: several
    /// leases are a good choice.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn fault(&self, operation: Operation) -> Fault {
        let rates = &self.rates;
        let part = if operation == Operation::Publish { rates.part } else { 0 };
        let shares = [
            rates.refused,
            rates.fail_before,
            rates.fail_after,
            rates.late,
            rates.duplicate,
            rates.hang,
            rates.pause,
            part,
        ];
        let total: u16 = shares.iter().sum();
        // The boring choice is no fault.
        let drawn = self.choices.below(self.actor, site(operation), 1_000);
        let Some(mut place) = drawn.checked_sub(1_000 - u64::from(total.min(1_000))) else {
            return Fault::None;
        };
        if total == 0 {
            return Fault::None;
        }
        for (kind, share) in shares.iter().enumerate() {
            match place.checked_sub(u64::from(*share)) {
                Some(rest) => place = rest,
                None => return self.of_kind(kind, operation),
            }
        }
        Fault::None
    }

    fn of_kind(&self, kind: usize, operation: Operation) -> Fault {
        let half = || self.choices.happens(self.actor, SITE_HALF, 500);
        match kind {
            0 => Fault::Refused(self.error(operation)),
            1 => Fault::FailBefore(self.error(operation)),
            2 => Fault::FailAfter(self.error(operation)),
            3 => Fault::Late(self.error(operation), self.long()),
            4 => Fault::Duplicate,
            5 if half() => Fault::HangAfter,
            5 => Fault::HangBefore,
            6 if half() => Fault::PauseAfter(self.long()),
            6 => Fault::PauseBefore(self.long()),
            _ => {
                let first = self.choices.below(self.actor, SITE_PART, 64);
                Fault::Part(self.error(operation), u32::try_from(first).unwrap_or(0))
            }
        }
    }

    fn error(&self, operation: Operation) -> ErrorKind {
        use ErrorKind::{Indeterminate, Misconfigured, Unavailable, Unexpected, Unroutable};
        let odd = self.rates.odd_kinds > 0
            && self.choices.below(self.actor, SITE_ODD, u64::from(self.rates.odd_kinds)) == 1;
        let usual: &[ErrorKind] = match operation {
            Operation::Publish if odd => &[Misconfigured, Unroutable],
            Operation::Publish => &[Unavailable, Indeterminate, Unexpected],
            _ if odd => &[Misconfigured],
            _ => &[Unavailable, Indeterminate],
        };
        usual[self.choices.index(self.actor, SITE_ERROR, usual.len())]
    }

    fn long(&self) -> Duration {
        self.drawn(SITE_LONG, self.patience)
    }

    fn drawn(&self, site: u16, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.choices.below(self.actor, site, limit))
    }
}

impl FaultPlan for SeededPlan {
    fn draw(&self, operation: Operation) -> Injection {
        let request = self.drawn(SITE_REQUEST, self.latency);
        let reply = self.drawn(SITE_REPLY, self.latency);
        Injection { request, fault: self.fault(operation), reply }
    }
}

/// The sites of a plan, from 100: a caller's own are below.
const SITE_REQUEST: u16 = 100;
const SITE_REPLY: u16 = 101;
const SITE_ERROR: u16 = 102;
const SITE_ODD: u16 = 103;
const SITE_LONG: u16 = 104;
const SITE_HALF: u16 = 105;
const SITE_PART: u16 = 106;
const SITE_SWARM: u16 = 107;
const SITE_EVERYTHING: u16 = 108;

const fn site(operation: Operation) -> u16 {
    110 + operation as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rates: Rates, calls: usize) -> Vec<Fault> {
        let plan = SeededPlan::new(Choices::new(5), 1, rates);
        (0..calls)
            .map(|_| plan.draw(Operation::Publish).fault)
            .filter(|fault| *fault != Fault::None)
            .collect()
    }

    #[test]
    fn a_rate_of_zero_is_never() {
        assert_eq!(faults(Rates::default(), 5_000), []);
        let only = faults(Rates { duplicate: 100, ..Rates::default() }, 5_000);
        assert!(only.iter().all(|fault| *fault == Fault::Duplicate));
        assert!((400..600).contains(&only.len()), "{}", only.len());
    }

    #[test]
    fn every_kind_strikes() {
        let all = faults(Rates::all(20), 20_000);
        let count = |matching: fn(&Fault) -> bool| all.iter().filter(|fault| matching(fault)).count();
        for (name, count) in [
            ("refused", count(|fault| matches!(fault, Fault::Refused(_)))),
            ("before", count(|fault| matches!(fault, Fault::FailBefore(_)))),
            ("after", count(|fault| matches!(fault, Fault::FailAfter(_)))),
            ("late", count(|fault| matches!(fault, Fault::Late(..)))),
            ("duplicate", count(|fault| matches!(fault, Fault::Duplicate))),
            ("part", count(|fault| matches!(fault, Fault::Part(..)))),
        ] {
            assert!((300..500).contains(&count), "{name}: {count}");
        }
        assert!(all.iter().any(|fault| matches!(fault, Fault::HangBefore)));
        assert!(all.iter().any(|fault| matches!(fault, Fault::HangAfter)));
        assert!(all.iter().any(|fault| matches!(fault, Fault::PauseBefore(_))));
        assert!(all.iter().any(|fault| matches!(fault, Fault::PauseAfter(_))));
    }
}
