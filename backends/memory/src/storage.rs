use crate::MemoryConfig;
use crate::outbox::Outbox;
use pillarbox_core::{
    Admin, Claim, Claimed, Error, Order, Renewed, RepeatedIds, Settled, Settlements, Storage,
    StorageGuarantees, Timestamp, Token, Wakeup,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An outbox in memory. Clones are handles on the same one.
#[derive(Clone)]
pub struct MemoryStorage(Arc<Shared>);

struct Shared {
    config: MemoryConfig,
    outbox: Mutex<Outbox>,
}

impl MemoryStorage {
    /// An empty outbox with the default settings.
    #[cfg(feature = "clock")]
    pub fn new() -> Self {
        let config = MemoryConfig::default();
        Self(Arc::new(Shared { outbox: Mutex::new(Outbox::new(&config)), config }))
    }

    /// An empty outbox.
    ///
    /// # Errors
    /// `Misconfigured`, naming the setting.
    pub fn open(config: MemoryConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self(Arc::new(Shared { outbox: Mutex::new(Outbox::new(&config)), config })))
    }

    pub(crate) fn config(&self) -> &MemoryConfig {
        &self.0.config
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.config.clock.now()
    }

    pub(crate) fn same_outbox(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A caller's staged write that panicked left the outbox itself untouched, so a poisoned lock is taken all the same.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
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
        formatter.debug_struct("MemoryStorage").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: self.config().head_policy,
            max_strikes: self.config().max_strikes,
            max_run: u32::MAX,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let mut outbox = self.lock();
        Ok(outbox.claim(&claim, self.now()))
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let mut outbox = self.lock();
        let now = self.now();
        Ok(tokens.iter().map(|token| outbox.renew(*token, lease, now)).collect())
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let mut outbox = self.lock();
        let now = self.now();
        for (token, settlement) in settlements.iter() {
            outbox.check(token, &settlement)?;
        }
        Ok(settlements.iter().map(|(token, settlement)| outbox.settle(token, &settlement, now)).collect())
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}
