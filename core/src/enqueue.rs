//! The application's half of a store.

use crate::{Error, Message};
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
