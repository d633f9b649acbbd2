//! The rules that cases cite, and how a case says that one was broken.

use super::BoxError;
use std::fmt;

/// A rule of the architecture: its number and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number in the architecture; 0 for the contract of producers and admins.
    pub number: u8,
    /// What it demands.
    pub words: &'static str,
}

const fn rule(number: u8, words: &'static str) -> Rule {
    Rule { number, words }
}

pub(crate) const ATOMIC_CLAIM: Rule =
    rule(1, "choosing, fencing and leasing is one atomic step; two live claims never cover one message");
pub(crate) const STORE_CLOCK: Rule =
    rule(2, "the store's clock alone decides leases and due times, and every answer carries its time");
pub(crate) const FENCING: Rule = rule(
    3,
    "only a current token changes anything; expiry alone changes nothing; the next claim raises the fence",
);
pub(crate) const COUNTED: Rule =
    rule(4, "the store counts every attempt and strike, and nobody is buried for a neighbour");
pub(crate) const KEY_ORDER: Rule =
    rule(5, "messages of one key are delivered in order, one holder at a time");
pub(crate) const DEAD_HEAD: Rule = rule(6, "a head that dies follows the head policy of the outbox");
pub(crate) const TERMINAL: Rule =
    rule(7, "what is published or dead is never claimed again; an id enqueued twice is never an error");
pub(crate) const NO_LOSS: Rule =
    rule(8, "nothing expires into loss: pending, claimed and dead messages stay");
pub(crate) const ANSWERS: Rule =
    rule(9, "one answer per token, in order; the settlement of one run is one atomic step");
pub(crate) const CANCEL: Rule = rule(
    10,
    "dropping a future leaves the store before or after the step; a repeated claim answers the same runs",
);
pub(crate) const ENQUEUE: Rule = rule(
    0,
    "messages become claimable when the caller's transaction commits, as they were given, and never else",
);
pub(crate) const ADMIN: Rule =
    rule(0, "admin calls are bounded, touch only what they name, and a dry run changes nothing");
pub(crate) const WAKEUP: Rule = rule(0, "a hint arrives after a commit; many count as one");

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(formatter, "contract: {}", self.words),
            number => write!(formatter, "rule {number}: {}", self.words),
        }
    }
}

/// Why a case failed.
#[derive(Debug)]
pub enum Violation {
    /// A rule was broken.
    Broken {
        /// Which.
        rule: Rule,
        /// What it demands here.
        expected: String,
        /// What was seen.
        seen: String,
    },
    /// The storage answered with an error where the contract allows none.
    Error(pillarbox_core::Error),
    /// The harness or the producer failed.
    Harness(BoxError),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { rule, expected, seen } => {
                write!(formatter, "{rule}\n  expected: {expected}\n  seen:     {seen}")
            }
            Self::Error(error) => {
                write!(formatter, "the storage failed where it must answer: {}", error.report())
            }
            Self::Harness(error) => write!(formatter, "the harness or the producer failed: {error}"),
        }
    }
}

impl From<pillarbox_core::Error> for Violation {
    fn from(error: pillarbox_core::Error) -> Self {
        Self::Error(error)
    }
}

impl From<BoxError> for Violation {
    fn from(error: BoxError) -> Self {
        Self::Harness(error)
    }
}

/// The violation of a rule.
pub(crate) fn broken(rule: Rule, expected: impl Into<String>, seen: impl Into<String>) -> Violation {
    Violation::Broken { rule, expected: expected.into(), seen: seen.into() }
}

/// Ends the case unless `condition` holds: `ensure!(condition, RULE, "what is expected", "what was seen {}", it)`.
macro_rules! ensure {
    ($condition:expr, $rule:expr, $expected:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::storage::rule::broken($rule, $expected, format!($($seen)+)));
        }
    };
}
pub(crate) use ensure;
