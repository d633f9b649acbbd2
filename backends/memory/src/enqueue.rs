use crate::storage::MemoryStorage;
use pillarbox_core::{Enqueue, Error, ErrorKind, Message};
use std::fmt;

/// A transaction: messages, and writes of the caller's own data, that take effect together or not at all.
///
/// Dropping it rolls back.
#[must_use = "a transaction takes effect when it is committed"]
pub struct MemoryTransaction {
    storage: MemoryStorage,
    messages: Vec<Message>,
    writes: Vec<Box<dyn FnOnce() + Send>>,
}

impl MemoryTransaction {
    pub(crate) fn new(storage: MemoryStorage) -> Self {
        Self { storage, messages: Vec::new(), writes: Vec::new() }
    }

    /// Adds a write of the caller's own data. It runs at the commit, before any relay can see the messages, in the order in
    /// which writes were staged; it must not panic, and must not call the outbox.
    pub fn stage(&mut self, write: impl FnOnce() + Send + 'static) {
        self.writes.push(Box::new(write));
    }

    /// Makes everything take effect, in one step that no relay sees half of.
    pub fn commit(self) {
        let Self { storage, messages, writes } = self;
        let now = storage.now();
        let mut outbox = storage.lock();
        for write in writes {
            write();
        }
        if messages.is_empty() {
            return;
        }
        for message in messages {
            outbox.insert(message, now);
        }
        outbox.listeners.hint();
    }

    /// Forgets everything. The same as dropping it, in a word.
    pub fn rollback(self) {}
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryTransaction")
            .field("messages", &self.messages.len())
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl Enqueue<MemoryTransaction> for MemoryStorage {
    async fn enqueue(&self, transaction: &mut MemoryTransaction, messages: &[Message]) -> Result<(), Error> {
        self.append(transaction, messages)
    }
}

impl MemoryStorage {
    /// Begins a transaction.
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction::new(self.clone())
    }

    /// As [`Enqueue::enqueue`], without async.
    ///
    /// # Errors
    /// `Rejected` for a message over this outbox's limit, `Misconfigured` for another outbox's transaction. Nothing is added.
    pub fn append(&self, transaction: &mut MemoryTransaction, messages: &[Message]) -> Result<(), Error> {
        if !self.same_outbox(&transaction.storage) {
            return Err(Error::new(ErrorKind::Misconfigured, "enqueue")
                .describe("the transaction belongs to another outbox; begin it with this one")
                .not_applied());
        }
        for message in messages {
            self.config().limits.check(message)?;
        }
        transaction.messages.extend_from_slice(messages);
        Ok(())
    }

    /// Enqueues messages in a transaction of their own, beside whatever else happens: what the caller writes elsewhere and these
    /// messages can be lost one without the other.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn enqueue_alone(&self, messages: &[Message]) -> Result<(), Error> {
        let mut transaction = self.begin();
        self.append(&mut transaction, messages)?;
        transaction.commit();
        Ok(())
    }
}
