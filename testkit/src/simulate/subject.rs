use pillarbox_core::{BoxFuture, HeadPolicy, Message, MessageId, Storage, Timestamp, Transport};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A storage to simulate relays on, in this process, with the application's half of it.
///
/// Everything runs in one thread and in virtual time: nothing here may block, sleep or read a clock but those of its
/// [`Setup`].
pub trait Subject {
    /// The storage. Clones are handles on one outbox.
    type Storage: Storage + Clone + 'static;
    /// The application's transaction.
    type Transaction: Send + 'static;

    /// A new, empty outbox with these settings.
    fn open(&self, setup: Setup) -> Self::Storage;

    /// Begins a transaction.
    fn begin(&self, storage: &Self::Storage) -> Self::Transaction;

    /// Makes messages part of a transaction.
    fn enqueue(&self, transaction: &mut Self::Transaction, messages: &[Message]);

    /// Commits a transaction.
    fn commit(&self, transaction: Self::Transaction);

    /// Rolls a transaction back.
    fn rollback(&self, transaction: Self::Transaction);

    /// What the outbox holds now.
    fn look(&self, storage: &Self::Storage) -> Look;

    /// The storage as the relay is given it: itself, or, to see whether the checker finds it, a relay's bad habit played
    /// between the two.
    fn relay_storage<S: Storage + 'static>(&self, storage: S) -> impl Storage + 'static {
        storage
    }

    /// The transport as the relay is given it: itself, or, to see whether the checker finds it, a broken one around it.
    fn relay_transport<T: Transport + 'static>(&self, transport: T) -> impl Transport + 'static {
        transport
    }
}

/// The settings of an outbox.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The store's clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Waits in virtual time: for a storage whose calls take several steps, between which others get through.
    pub sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// What happens to a key whose head died.
    pub head_policy: HeadPolicy,
    /// How many strikes bury a message.
    pub max_strikes: u32,
    /// The longest run that a claim answers.
    pub max_run: u32,
    /// Whether published messages are kept until they are purged.
    pub keep_published: bool,
}

impl fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Setup")
            .field("head_policy", &self.head_policy)
            .field("max_strikes", &self.max_strikes)
            .field("max_run", &self.max_run)
            .field("keep_published", &self.keep_published)
            .finish_non_exhaustive()
    }
}

/// What an outbox holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How many messages are neither published nor dead.
    pub remaining: u64,
    /// The dead letters.
    pub dead: Vec<MessageId>,
}
