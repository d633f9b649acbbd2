//! Hints that work may be due.

use futures_util::future::BoxFuture;
use std::fmt;

/// A store that can hint that work may be due. Losing every hint costs latency only: the poll interval is the floor.
pub trait Wakeup: Send + Sync {
    /// Hints from now on, for one relay. Cheap; connects when it is first waited for.
    fn subscribe(&self) -> Box<dyn Hints>;
}

/// The hints for one relay.
pub trait Hints: Send {
    /// Completes when a hint has arrived since it last completed; many hints count as one. An implementation reconnects by
    /// itself, at a bounded rate, and never reports an error: while it cannot hear, it does not complete.
    ///
    /// # Cancel safety
    /// A hint that arrives while nobody waits is kept for the next call.
    fn hinted(&mut self) -> BoxFuture<'_, ()>;
}

impl fmt::Debug for dyn Hints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hints")
    }
}
