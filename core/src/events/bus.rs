use crate::{Enqueue, Error, ErrorKind, Message, Outcomes, Transport};
use futures_util::future::BoxFuture;
use std::fmt;

/// Where integration events go. Dyn-compatible, so that a deployment chooses.
pub trait EventBus<Tx>: Send + Sync {
    /// Takes `messages` on, as a part of `transaction` if the bus is an outbox.
    ///
    /// # Errors
    /// As [`Enqueue::enqueue`], or as the transport's publish; then the caller rolls its transaction back.
    ///
    /// # Cancel safety
    /// After the future was dropped some of the messages may be taken on: roll the transaction back.
    fn publish<'a>(
        &'a self,
        transaction: &'a mut Tx,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), Error>>;
}

impl<Tx> fmt::Debug for dyn EventBus<Tx> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventBus")
    }
}

/// Writes events to the outbox in the caller's transaction: they are published if it commits, and only then.
#[derive(Clone, Debug)]
pub struct OutboxEventBus<O> {
    outbox: O,
}

impl<O> OutboxEventBus<O> {
    /// A bus over `outbox`.
    pub const fn new(outbox: O) -> Self {
        Self { outbox }
    }
}

impl<O: Enqueue<Tx>, Tx: Send> EventBus<Tx> for OutboxEventBus<O> {
    fn publish<'a>(
        &'a self,
        transaction: &'a mut Tx,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.outbox.enqueue(transaction, messages))
    }
}

/// Publishes events at once and ignores the transaction.
///
/// **There is no outbox here.** The broker has the event before the caller's transaction commits: a rollback leaves a ghost
/// message, an event that never happened, and consumers may see it before the data. A broker that is down fails the
/// caller. It is for deployments that accept that, and for tests.
#[derive(Clone, Debug)]
pub struct DirectEventBus<T> {
    transport: T,
}

impl<T> DirectEventBus<T> {
    /// A bus straight to `transport`.
    pub const fn new(transport: T) -> Self {
        Self { transport }
    }
}

impl<T: Transport, Tx: Send> EventBus<Tx> for DirectEventBus<T> {
    fn publish<'a>(&'a self, _: &'a mut Tx, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut outcomes = Outcomes::new();
            // One at a time: a transport may let a later message of a key through when an earlier one fails.
            for message in messages {
                outcomes.reset(1);
                self.transport.publish(std::slice::from_ref(message), &mut outcomes).await;
                outcomes.take(0).unwrap_or_else(|| Err(no_outcome(message)))?;
            }
            Ok(())
        })
    }
}

fn no_outcome(message: &Message) -> Error {
    Error::new(ErrorKind::Indeterminate, "publish")
        .describe(format!("the transport did not say what became of the message {}", message.id()))
}
