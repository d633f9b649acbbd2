//! Faults for storages and transports: decorators that fail calls before or after their effect, delay and repeat them, and
//! let them land when nobody waits any more.
//!
//! Every call is a request, an effect and a reply. A caller that sees an error cannot tell which of them was lost, and a
//! request that was given up may still arrive: a store is only as good as its answers to that.

mod crash;
mod plan;
mod storage;
mod transport;

pub use crash::{CrashAfter, crash_after};
pub use plan::{Rates, SeededPlan};
pub use storage::FaultyStorage;
pub use transport::FaultyTransport;

use pillarbox_core::{BoxFuture, Error, ErrorKind};
use std::time::Duration;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Storage::claim`](pillarbox_core::Storage::claim).
    Claim,
    /// [`Storage::renew`](pillarbox_core::Storage::renew).
    Renew,
    /// [`Storage::settle`](pillarbox_core::Storage::settle).
    Settle,
    /// A hint of [`Wakeup`](pillarbox_core::Wakeup): every fault loses it.
    Hint,
    /// [`Transport::publish`](pillarbox_core::Transport::publish).
    Publish,
    /// [`Transport::probe`](pillarbox_core::Transport::probe).
    Probe,
    /// The commit of a producer's transaction.
    Commit,
}

impl Operation {
    /// The verb of its errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Settle => "settle",
            Self::Hint => "hint",
            Self::Publish => "publish",
            Self::Probe => "probe",
            Self::Commit => "commit",
        }
    }
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It fails, nothing happened, and the error says so.
    Refused(ErrorKind),
    /// It fails before the effect; the caller is not told which.
    FailBefore(ErrorKind),
    /// It fails after the effect; the caller is not told which.
    FailAfter(ErrorKind),
    /// It fails, and the effect comes so much later.
    Late(ErrorKind, Duration),
    /// It takes effect twice, as a request that was sent again.
    Duplicate,
    /// It is never answered, and has no effect.
    HangBefore,
    /// It is never answered, and has its effect.
    HangAfter,
    /// The caller stops for so long before the effect, as a process that the machine did not run.
    PauseBefore(Duration),
    /// The caller stops for so long after the effect.
    PauseAfter(Duration),
    /// For a publish: the first messages of the batch are published, and the others fail before the effect. How many is this
    /// number, taken modulo the size of the batch.
    Part(ErrorKind, u32),
}

/// One call's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Injection {
    /// How long the request takes.
    pub request: Duration,
    /// What goes wrong.
    pub fault: Fault,
    /// How long the reply takes.
    pub reply: Duration,
}

/// Decides what goes wrong.
pub trait FaultPlan: Send + Sync {
    /// The fate of the next call of `operation`.
    fn draw(&self, operation: Operation) -> Injection;
}

impl<P: FaultPlan + ?Sized> FaultPlan for std::sync::Arc<P> {
    fn draw(&self, operation: Operation) -> Injection {
        (**self).draw(operation)
    }
}

/// What faults need of the program around them. The simulator has one; on a runtime it is a few lines.
pub trait Surroundings: Send + Sync {
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `effect` to its end beside the caller, also when the caller is gone.
    fn later(&self, effect: BoxFuture<'static, ()>);

    /// Stops the caller's whole instance for `duration` at its next await.
    fn pause(&self, duration: Duration);
}

impl<T: Surroundings + ?Sized> Surroundings for std::sync::Arc<T> {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        (**self).sleep(duration)
    }

    fn later(&self, effect: BoxFuture<'static, ()>) {
        (**self).later(effect);
    }

    fn pause(&self, duration: Duration) {
        (**self).pause(duration);
    }
}

/// The error of an injected fault. Its effect is unknown, whatever happened: nobody can tell from outside.
fn injected(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation.name()).describe("injected")
}

/// A pause begins at the next await, so there is one.
const BREATH: Duration = Duration::from_nanos(1);
