use crate::MemoryClock;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits, StorageGuarantees};

/// The settings of a [`MemoryStorage`](crate::MemoryStorage). Checked when it is opened.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    pub(crate) clock: MemoryClock,
    pub(crate) head_policy: HeadPolicy,
    pub(crate) max_strikes: u32,
    pub(crate) max_run: u32,
    pub(crate) limits: Limits,
    pub(crate) keep_published: bool,
}

impl MemoryConfig {
    /// The defaults, with the system's clock.
    #[cfg(feature = "clock")]
    pub fn new() -> Self {
        Self::with_clock(MemoryClock::system())
    }

    /// The defaults, with this clock.
    pub fn with_clock(clock: MemoryClock) -> Self {
        Self {
            clock,
            head_policy: HeadPolicy::Continue,
            max_strikes: StorageGuarantees::DEFAULT_MAX_STRIKES,
            max_run: 500,
            limits: Limits::default(),
            keep_published: false,
        }
    }

    /// What happens to a key whose head died. Default [`HeadPolicy::Continue`]: one bad message holds nobody up.
    #[must_use]
    pub const fn head_policy(mut self, policy: HeadPolicy) -> Self {
        self.head_policy = policy;
        self
    }

    /// How many strikes bury a message, at least 1. Default 3: alone with three dying relays is no coincidence.
    #[must_use]
    pub const fn max_strikes(mut self, strikes: u32) -> Self {
        self.max_strikes = strikes;
        self
    }

    /// The longest run that a claim answers, at least 1. Default 500: longer ones gain nothing, and a message that kills its
    /// relay is found within log2 of it and `max_strikes` deaths.
    #[must_use]
    pub const fn max_run(mut self, messages: u32) -> Self {
        self.max_run = messages;
        self
    }

    /// What messages may measure. Default [`Limits::default`]: payloads up to 1 MiB.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether published messages are kept until `purge_published`. Default no: they are removed when they are settled, and
    /// what is kept takes memory.
    #[must_use]
    pub const fn keep_published(mut self, keep: bool) -> Self {
        self.keep_published = keep;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, value) in [("max_strikes", self.max_strikes), ("max_run", self.max_run)] {
            if value == 0 {
                return Err(Error::new(ErrorKind::Misconfigured, "open")
                    .describe(format!("`{name}` is 0; set it to 1 or more"))
                    .not_applied());
            }
        }
        Ok(())
    }
}

#[cfg(feature = "clock")]
impl Default for MemoryConfig {
    fn default() -> Self {
        Self::new()
    }
}
