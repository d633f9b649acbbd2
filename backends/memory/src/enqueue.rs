use crate::MemoryStorage;
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, ErrorKind, Message};
use std::fmt;

/// A transaction: messages and the caller's own writes, applied together at [`commit`](Self::commit). Dropping it rolls
/// it back.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct MemoryTransaction {
    storage: MemoryStorage,
    messages: Vec<Message>,
    writes: Vec<Box<dyn FnOnce() + Send>>,
}

impl MemoryTransaction {
    pub(crate) const fn new(storage: MemoryStorage) -> Self {
        Self { storage, messages: Vec::new(), writes: Vec::new() }
    }

    /// Adds a write of the caller's own data, made at the commit, in the order of the calls.
    ///
    /// It runs while the outbox is locked: it must not call the storage. If it panics, no message of the transaction is
    /// enqueued and the writes after it are not made.
    pub fn stage(&mut self, write: impl FnOnce() + Send + 'static) {
        self.writes.push(Box::new(write));
    }

    /// Adds messages. The same as [`Enqueue::enqueue`], for callers without async.
    ///
    /// # Errors
    /// `Rejected` if a payload is over the limit of this outbox; none of `messages` is added then.
    pub fn append(&mut self, messages: &[Message]) -> Result<(), Error> {
        self.storage.check(messages)?;
        self.messages.extend_from_slice(messages);
        Ok(())
    }

    /// Makes the writes and the messages visible, in one step.
    pub fn commit(self) {
        self.storage.commit(self.messages, self.writes);
    }

    /// Forgets everything; the same as dropping it.
    pub fn rollback(self) {}
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryTransaction")
            .field("messages", &self.messages)
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl Enqueue<MemoryTransaction> for MemoryStorage {
    async fn enqueue(&self, transaction: &mut MemoryTransaction, messages: &[Message]) -> Result<(), Error> {
        if !self.is_same(&transaction.storage) {
            return Err(Error::new(ErrorKind::Misconfigured, "enqueue")
                .describe(
                    "the transaction belongs to another outbox; begin it with this one's `transaction()`",
                )
                .not_applied());
        }
        transaction.append(messages)
    }
}

impl EnqueueAlone for MemoryStorage {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { Self::enqueue_alone(self, messages) })
    }
}
