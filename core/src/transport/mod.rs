//! The relay's way to a broker: [`Transport`], and [`Routes`] to several.

mod outcomes;
mod routes;

pub use outcomes::Outcomes;
pub use routes::{Routes, TopicPattern};

use crate::{Error, Message};
use std::future::Future;

/// A broker that messages are published to. Write it with plain `async fn`.
///
/// # Contract
///
/// - An outcome is `Ok` only after the broker has confirmed that the message is safe with it.
/// - Each outcome is written as soon as it is known, so that a publish which is cut off keeps what was confirmed. What is
///   never written counts as unknown.
/// - Errors name what the relay should do by their [kind](crate::ErrorKind): `NotApplied` only if the message certainly
///   did not reach the broker.
/// - The id, key and headers travel with the message, so that a consumer can recognise a redelivery.
/// - One connection serves all calls; it is opened again by itself, and nothing is published by a background task.
pub trait Transport: Send + Sync {
    /// Publishes `batch` and writes one outcome per message. `outcomes` arrives empty with room for the batch.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the messages without an outcome unknown; the transport stays usable.
    fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) -> impl Future<Output = ()> + Send;

    /// Asks the broker behind `destination` for a sign of life, without publishing. A relay asks before it goes on after an
    /// outage, and to learn whether a message or an outage was at fault.
    ///
    /// # Errors
    /// As `publish` would fail: `Unavailable` while the broker is away.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    fn probe(&self, destination: Destination) -> impl Future<Output = Result<(), Error>> + Send;

    /// Which destination a message goes to: the unit that is paused by itself when it fails. One for all by default, since
    /// most transports have one broker.
    fn destination(&self, message: &Message) -> Destination {
        let _ = message;
        Destination::ONLY
    }

    /// All destinations that [`destination`](Self::destination) may name. A relay asks once, so that it knows when every one of
    /// them is away and nothing is worth claiming.
    fn destinations(&self) -> Vec<Destination> {
        vec![Destination::ONLY]
    }

    /// What the broker behind `destination` promises.
    fn guarantees(&self, destination: Destination) -> TransportGuarantees;
}

impl<T: Transport> Transport for std::sync::Arc<T> {
    fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) -> impl Future<Output = ()> + Send {
        (**self).publish(batch, outcomes)
    }

    fn probe(&self, destination: Destination) -> impl Future<Output = Result<(), Error>> + Send {
        (**self).probe(destination)
    }

    fn destination(&self, message: &Message) -> Destination {
        (**self).destination(message)
    }

    fn destinations(&self) -> Vec<Destination> {
        (**self).destinations()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        (**self).guarantees(destination)
    }
}

/// One of a transport's destinations: a small index, the unit of the relay's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination(pub u16);

impl Destination {
    /// The destination of a transport that has one.
    pub const ONLY: Self = Self(0);
}

/// What the broker behind a destination promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportGuarantees {
    /// Whether the broker drops a message whose id it has seen (within its window).
    pub deduplicates: bool,
    /// The largest payload it takes, in bytes. A relay buries larger ones without sending them.
    pub max_payload: u32,
    /// When one message of a key fails, was no later one of that key in the batch accepted? Only then may two messages of a
    /// key share a publish.
    pub prefix_per_key: bool,
}
