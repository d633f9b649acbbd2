use crate::outbox::Outbox;
use crate::wakeup::Subscribers;
use crate::{MemoryClock, MemoryConfig, MemoryTransaction};
use bytes::Bytes;
use pillarbox_core::{
    Admin, Claim, Claimed, Error, Limits, Message, Order, Renewed, RepeatedIds, Settled, Settlements,
    Storage, StorageGuarantees, Text, Timestamp, Token, Undecodable, Wakeup,
};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An outbox in this process's memory. Clones are handles on the same outbox.
///
/// Its order is the order of commits; an id that is still stored is ignored when it is enqueued again. It remembers the
/// last 16,384 settled runs, so that a repeated settlement is answered `AlreadyApplied`.
#[derive(Clone)]
pub struct MemoryStorage(Arc<Shared>);

struct Shared {
    outbox: Mutex<Outbox>,
    clock: MemoryClock,
    limits: Limits,
    guarantees: StorageGuarantees,
    subscribers: Subscribers,
}

impl MemoryStorage {
    /// An outbox with the default settings and the system's clock.
    #[cfg(feature = "clock")]
    pub fn new() -> Self {
        Self::with(&MemoryConfig::new())
    }

    /// An outbox with these settings.
    ///
    /// # Errors
    /// `Misconfigured`, naming the setting.
    #[allow(clippy::needless_pass_by_value, reason = "every backend opens with a configuration by value")]
    pub fn open(config: MemoryConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self::with(&config))
    }

    fn with(config: &MemoryConfig) -> Self {
        let guarantees = StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::Ignored,
            head_policy: config.head_policy,
            max_strikes: config.max_strikes,
            max_run: config.max_run,
        };
        Self(Arc::new(Shared {
            outbox: Mutex::new(Outbox::new(guarantees, config.keep_published)),
            clock: config.clock.clone(),
            limits: config.limits,
            guarantees,
            subscribers: Subscribers::default(),
        }))
    }

    /// Begins a transaction for messages and the caller's own writes.
    pub fn transaction(&self) -> MemoryTransaction {
        MemoryTransaction::new(self.clone())
    }

    /// Enqueues messages without a transaction of the application: if the program stops between its own writes and this
    /// call, they do not agree.
    ///
    /// # Errors
    /// `Rejected` if a payload is over the limit of this outbox; nothing is enqueued then.
    pub fn enqueue_alone(&self, messages: &[Message]) -> Result<(), Error> {
        self.check(messages)?;
        self.commit(messages.to_vec(), Vec::new());
        Ok(())
    }

    /// Puts a record in that is no message, as a store that other programs write to may hold: for tests of relays.
    pub fn enqueue_undecodable(&self, bytes: impl Into<Bytes>, reason: impl Into<Text>) {
        let record = Undecodable { id: None, bytes: bytes.into(), reason: reason.into() };
        self.locked(|outbox, now| outbox.enqueue_undecodable(record, now));
        self.0.subscribers.hint();
    }

    /// The clock that decides its leases and due times.
    pub fn clock(&self) -> &MemoryClock {
        &self.0.clock
    }

    pub(crate) fn check(&self, messages: &[Message]) -> Result<(), Error> {
        Ok(messages.iter().try_for_each(|message| self.0.limits.check(message))?)
    }

    pub(crate) fn commit(&self, messages: Vec<Message>, writes: Vec<Box<dyn FnOnce() + Send>>) {
        let any = !messages.is_empty();
        self.locked(|outbox, now| {
            // First what may panic: the outbox is unchanged then.
            for write in writes {
                write();
            }
            for message in messages {
                outbox.enqueue(message, now);
            }
        });
        if any {
            self.0.subscribers.hint();
        }
    }

    pub(crate) fn subscribers(&self) -> &Subscribers {
        &self.0.subscribers
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Does something with the outbox at its own time.
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&mut Outbox, Timestamp) -> T) -> T {
        // Only a caller's write can panic under the lock, and before anything is changed.
        let mut outbox = self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let now = outbox.read_clock(self.0.clock.now());
        work(&mut outbox, now)
    }
}

#[cfg(feature = "clock")]
impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryStorage")
            .field("guarantees", &self.0.guarantees)
            .finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn guarantees(&self) -> StorageGuarantees {
        self.0.guarantees
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        Ok(self.locked(|outbox, now| outbox.claim(&claim, now)))
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        Ok(self.locked(|outbox, now| tokens.iter().map(|token| outbox.renew(*token, lease, now)).collect()))
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        self.locked(|outbox, now| outbox.settle(settlements, now))
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}
