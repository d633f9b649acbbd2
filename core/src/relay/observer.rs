use crate::{Destination, Error, MessageId};
use std::fmt;
use std::time::Duration;

/// Hears what a relay does. Logs, metrics and progress bars are built on it.
pub trait Observer: Send + Sync {
    /// Called in the relay's own step: return quickly, and do not block.
    fn observe(&self, observation: &Observation<'_>);
}

/// Something that a relay did or met.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A claim was answered.
    Claimed {
        /// How many messages it brought.
        messages: u32,
        /// In how many runs.
        runs: u32,
        /// How many the store buried at this claim, for reaching the limit of strikes.
        buried: u32,
        /// How many suspects wait.
        suspects: u32,
        /// How long it took.
        took: Duration,
    },
    /// A publish ended.
    Published {
        /// Where.
        destination: Destination,
        /// How many messages the broker confirmed.
        confirmed: u32,
        /// How many it did not.
        failed: u32,
        /// How long it took.
        took: Duration,
    },
    /// A send failed, and the message is tried again.
    Retried {
        /// Which message, where its id is known.
        id: Option<MessageId>,
        /// Failed sends, with this one.
        attempts: u32,
        /// Due again after so long.
        after: Duration,
        /// Why.
        reason: &'a str,
    },
    /// A message was given up.
    Buried {
        /// Which message, where its id is known.
        id: Option<MessageId>,
        /// Why.
        reason: &'a str,
    },
    /// Messages were given back untouched.
    Released {
        /// How many.
        messages: u32,
    },
    /// A settle was answered.
    Settled {
        /// How many messages are published and settled for good.
        published: u32,
        /// How long it took.
        took: Duration,
    },
    /// The lease of a run was lost to another relay. What was sent under it may be sent again.
    Fenced {
        /// How many messages of the run this relay had sent.
        sent: u32,
    },
    /// A publish was cut off: it took too long, its lease ended, or the relay stops.
    CutOff {
        /// Where.
        destination: Destination,
    },
    /// A destination is left alone for a while.
    Paused {
        /// Which.
        destination: Destination,
        /// For how long.
        pause: Duration,
        /// Why, where an error said so.
        error: Option<&'a Error>,
    },
    /// A destination answers again.
    Resumed {
        /// Which.
        destination: Destination,
    },
    /// The store failed and is left alone for a while.
    StoreFailed {
        /// How often in a row.
        failures: u32,
        /// For how long.
        pause: Duration,
        /// Why.
        error: &'a Error,
    },
    /// The store answers again.
    StoreRecovered,
    /// The relay drains, and then stops.
    Stopping {
        /// How many messages it still holds.
        held: u32,
    },
}

/// Hears everything and does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Observation<'_>) {}
}

impl<O: Observer + ?Sized> Observer for std::sync::Arc<O> {
    fn observe(&self, observation: &Observation<'_>) {
        (**self).observe(observation);
    }
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Observer")
    }
}
