//! The application's half of a store.

use crate::{Error, Message};
use futures_util::future::BoxFuture;
use std::future::Future;

/// Writes messages into the caller's own transaction.
///
/// A backend implements it once for every transaction type of its clients, and others may add theirs. It has no
/// supertrait, so that a producer needs no permission to claim; one cloneable handle may implement both halves.
///
/// # Contract
///
/// - Messages become claimable when the caller's transaction commits, all of them, and never if it rolls back.
/// - Messages of one key in one transaction keep their order.
/// - An id that is already there never fails the transaction (see [`RepeatedIds`](crate::RepeatedIds)).
/// - Nothing is written if one message is refused.
pub trait Enqueue<Transaction: ?Sized>: Send + Sync {
    /// Adds `messages` to `transaction`.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, which is named; `Misconfigured` if the transaction is of a
    /// kind that cannot keep the promise; `Unavailable` if the store does not answer, and then the caller's transaction
    /// must be rolled back.
    ///
    /// # Cancel safety
    /// After the future was dropped some of the messages may be part of the transaction: roll it back.
    fn enqueue(
        &self,
        transaction: &mut Transaction,
        messages: &[Message],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Writes messages in a transaction of their own. Dyn-compatible, for programs that choose the store by URL.
///
/// Beside business data this is *not* an outbox: whoever writes both must use [`Enqueue`] with the transaction of the data.
/// It is for messages that come from outside, such as those of `pillarbox enqueue`, and for replays.
///
/// # Contract
///
/// - All of `messages` become claimable, or none.
/// - Messages of one key keep their order.
/// - An id that is already there is no error (see [`RepeatedIds`](crate::RepeatedIds)).
pub trait EnqueueAlone: Send + Sync {
    /// Stores `messages`, all or none.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, and then nothing is stored; any other kind, whose
    /// [effect](Error::effect) says whether the messages may be stored all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all messages stored, or none.
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>>;
}

impl<P: EnqueueAlone + ?Sized> EnqueueAlone for std::sync::Arc<P> {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        (**self).enqueue_alone(messages)
    }
}
