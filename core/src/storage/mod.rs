//! The relay's half of a store: [`Storage`], and the values that go in and come out.

mod claim;
mod settle;
mod token;

pub use claim::{Claim, Claimed, Content, Entry, Run, Undecodable};
pub use settle::{Renewed, Settled, Settlement, Settlements, Verdict, check_verdicts};
pub use token::{Nonce, Outcome, Token};

use crate::{Admin, Error, Wakeup};
use std::future::Future;
use std::time::Duration;

/// A store that relays claim from. Write it with plain `async fn`.
///
/// # Contract
///
/// The numbers are those of the rules in the [architecture](crate::docs::architecture).
///
/// - **Atomic claim** (1). Choosing due messages, raising the fence and starting the lease is one atomic step. Two live
///   claims never cover one message.
/// - **Store clock** (2). Every time in an answer, and every decision, is by the store's own clock.
/// - **Fencing** (3). `renew` and `settle` change something only while fence *and* nonce of the token are current.
///   Expiry alone changes nothing. The next claim of an expired run charges its strike, in one step.
/// - **Strikes** (4). A claim without an outcome halves the next run; what stands alone is handed out only to a `solo`
///   claim; a strike on a renewed solo claim counts, and at `max_strikes` the message is buried by the claim.
/// - **Order per key** (5). One holder of a key at a time, messages of a key in order, also after failures.
/// - **Dead heads** (6) follow the stored [`HeadPolicy`].
/// - **Terminal is terminal** (7), and **nothing expires into loss** (8).
/// - **Answers match questions** (9): one answer per token, in order; one run is settled in one atomic step.
/// - **Cancel safety** (10). Dropping a future leaves the store before or after the step. A claim that is repeated with
///   its nonce answers the same, still live runs.
///
/// `pillarbox-testkit` has the suite that proves all of it for an implementation.
pub trait Storage: Send + Sync {
    /// What this store promises, and the settings that are stored with the outbox.
    fn guarantees(&self) -> StorageGuarantees;

    /// Hands out due messages.
    ///
    /// # Errors
    /// Any kind. The caller repeats it with the same nonce, so an answer that was lost strands nothing.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the store before or after the claim; repeating it with its nonce answers the same runs.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Prolongs leases to `lease` from now; never shortens one. One answer per token, in order.
    ///
    /// # Errors
    /// Any kind; nothing may be assumed of any token then. A stale token is an answer, not an error.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each lease prolonged or not.
    fn renew(
        &self,
        tokens: &[Token],
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Renewed>, Error>> + Send;

    /// Reports what became of whole runs. One answer per run, in order; each run is one atomic step.
    ///
    /// # Errors
    /// Any kind; each run may or may not be settled then, and the caller repeats the call with identical verdicts. A stale
    /// token is an answer, not an error. Verdicts that do not match their run are `Rejected`, and nothing is changed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each run settled or not; repeating it is answered `AlreadyApplied` or `Fenced`.
    fn settle(&self, settlements: &Settlements) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;

    /// Hints that work may be due, if the store can give them.
    fn wakeup(&self) -> Option<&dyn Wakeup>;

    /// Looking and mending, if the store offers it.
    fn admin(&self) -> Option<&dyn Admin>;
}

impl<S: Storage> Storage for std::sync::Arc<S> {
    fn guarantees(&self) -> StorageGuarantees {
        (**self).guarantees()
    }

    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, Error>> + Send {
        (**self).claim(claim)
    }

    fn renew(
        &self,
        tokens: &[Token],
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Renewed>, Error>> + Send {
        (**self).renew(tokens, lease)
    }

    fn settle(&self, settlements: &Settlements) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send {
        (**self).settle(settlements)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        (**self).wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        (**self).admin()
    }
}

/// What a store promises, and the settings that are stored with the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageGuarantees {
    /// Which order per key it keeps.
    pub order: Order,
    /// What it does with an id that is enqueued twice.
    pub repeated_ids: RepeatedIds,
    /// What happens to a key whose head died.
    pub head_policy: HeadPolicy,
    /// How many strikes bury a message. Default 3.
    pub max_strikes: u32,
    /// The longest run that a claim answers; it bounds the deaths that a deadly message causes.
    pub max_run: u32,
}

impl StorageGuarantees {
    /// The default of `max_strikes`: a message that was alone with three dying relays is no coincidence.
    pub const DEFAULT_MAX_STRIKES: u32 = 3;
}

/// Which order per key a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The order of commits.
    CommitOrdered,
    /// The order in which the inserts ran. Concurrent transactions on one key may commit the other way round, so update the
    /// aggregate first, then enqueue.
    InsertOrdered,
}

/// What a store does with an id that is enqueued twice. Never an error inside the caller's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepeatedIds {
    /// While the first is still stored, the second is dropped.
    Ignored,
    /// Both are delivered; consumers deduplicate.
    SecondCopy,
}

/// What happens to a key whose head died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum HeadPolicy {
    /// Bury it and go on with the key.
    #[default]
    Continue,
    /// Hold the key until a redrive or a discard.
    Block,
}

impl HeadPolicy {
    /// The name in URLs and in stores: `continue` or `block`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Block => "block",
        }
    }
}

impl std::str::FromStr for HeadPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "continue" => Ok(Self::Continue),
            "block" => Ok(Self::Block),
            _ => Err(Error::new(crate::ErrorKind::Misconfigured, "configure")
                .describe(format!("`head_policy` is {text:?}; it is `continue` or `block`"))),
        }
    }
}
