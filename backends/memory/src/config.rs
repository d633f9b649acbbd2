use crate::MemoryClock;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits, StorageGuarantees};

/// The settings of an in-memory outbox.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    pub(crate) clock: MemoryClock,
    pub(crate) head_policy: HeadPolicy,
    pub(crate) max_strikes: u32,
    pub(crate) limits: Limits,
    pub(crate) keep_published: bool,
}

impl MemoryConfig {
    /// The defaults, on this clock.
    pub fn new(clock: MemoryClock) -> Self {
        Self {
            clock,
            head_policy: HeadPolicy::default(),
            max_strikes: StorageGuarantees::DEFAULT_MAX_STRIKES,
            limits: Limits::default(),
            keep_published: false,
        }
    }

    /// What happens to a key whose head died. Default [`HeadPolicy::Continue`]: one bad message does not stop its key.
    #[must_use]
    pub fn head_policy(mut self, policy: HeadPolicy) -> Self {
        self.head_policy = policy;
        self
    }

    /// How many strikes bury a message, at least 1. Default 3: see [`StorageGuarantees::DEFAULT_MAX_STRIKES`].
    #[must_use]
    pub fn max_strikes(mut self, strikes: u32) -> Self {
        self.max_strikes = strikes;
        self
    }

    /// How large payloads may be. Default 1 MiB.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether published messages stay until they are purged. Default no: they would fill the memory.
    #[must_use]
    pub fn keep_published(mut self, keep: bool) -> Self {
        self.keep_published = keep;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.max_strikes == 0 {
            return Err(Error::new(ErrorKind::Misconfigured, "open")
                .describe("`max_strikes` is 0; set it to 1 or more")
                .not_applied());
        }
        Ok(())
    }
}

#[cfg(feature = "clock")]
impl Default for MemoryConfig {
    fn default() -> Self {
        Self::new(MemoryClock::system())
    }
}
