//! How a case says that the contract was broken.

use super::BoxError;
use std::fmt;

/// What the contract of [`Transport`](pillarbox_core::Transport) demands, in words.
pub(crate) type Demand = &'static str;

pub(crate) const CONFIRMED: Demand = "an outcome is `Ok` only after the broker has confirmed the message";
pub(crate) const PER_MESSAGE: Demand = "each message has its own outcome, and no failure spreads to others";
pub(crate) const UNCHANGED: Demand =
    "id, topic, key, headers, payload and content type travel as they were given";
pub(crate) const ORDER: Demand = "messages of one key that are published one after another arrive in order";
pub(crate) const PREFIX: Demand =
    "with `prefix_per_key`, nothing of a key is accepted behind a message of it that was not";
pub(crate) const KINDS: Demand = "the kind of an error names what the relay should do";
pub(crate) const EFFECT: Demand = "`NotApplied` only if the message certainly did not reach the broker";
pub(crate) const CANCEL: Demand = "a dropped future leaves the transport usable, and mixes no outcomes";
pub(crate) const RECOVERY: Demand = "a lost connection is opened again by itself";
pub(crate) const PROBE: Demand = "`probe` tells whether the broker is there, and publishes nothing";
pub(crate) const DESTINATIONS: Demand = "`destinations` lists all that `destination` may name";
pub(crate) const DECLARED: Demand = "the harness declares what the transport guarantees";

/// Why a case failed.
#[derive(Debug)]
pub enum Violation {
    /// The contract was broken.
    Broken {
        /// What it demands.
        demand: &'static str,
        /// What that means here.
        expected: String,
        /// What was seen.
        seen: String,
    },
    /// The transport could not connect, or failed where the contract allows no error.
    Error(pillarbox_core::Error),
    /// The harness failed.
    Harness(BoxError),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { demand, expected, seen } => {
                write!(formatter, "contract: {demand}\n  expected: {expected}\n  seen:     {seen}")
            }
            Self::Error(error) => {
                write!(formatter, "the transport failed where it must succeed: {}", error.report())
            }
            Self::Harness(error) => write!(formatter, "the harness failed: {error}"),
        }
    }
}

impl From<pillarbox_core::Error> for Violation {
    fn from(error: pillarbox_core::Error) -> Self {
        Self::Error(error)
    }
}

impl From<pillarbox_core::InvalidMessage> for Violation {
    fn from(error: pillarbox_core::InvalidMessage) -> Self {
        Self::Error(error.into())
    }
}

impl From<BoxError> for Violation {
    fn from(error: BoxError) -> Self {
        Self::Harness(error)
    }
}

/// Ends the case unless `condition` holds: `ensure!(condition, DEMAND, "what is expected", "what was seen {}", it)`.
macro_rules! ensure {
    ($condition:expr, $demand:expr, $expected:expr, $($seen:tt)+) => {
        if !$condition {
            let (demand, expected) = ($demand, String::from($expected));
            return Err($crate::transport::Violation::Broken { demand, expected, seen: format!($($seen)+) });
        }
    };
}
pub(crate) use ensure;
