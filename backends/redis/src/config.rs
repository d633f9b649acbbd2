use crate::connection::Target;
use crate::url;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits};
use std::fmt;
use std::time::Duration;

/// Where an outbox is, and its settings.
///
/// The settings of the outbox itself (lanes, head policy, strikes, largest payload) are stored with it by the first handle that
/// opens it. A later one takes what is stored; one that asks for something else is `Misconfigured`.
#[derive(Clone)]
pub struct RedisConfig {
    pub(crate) target: Target,
    pub(crate) name: String,
    pub(crate) lanes: Option<u16>,
    pub(crate) head_policy: Option<HeadPolicy>,
    pub(crate) max_strikes: Option<u32>,
    pub(crate) max_payload: Option<Limits>,
    pub(crate) durability: Durability,
    pub(crate) replicas: u32,
    pub(crate) durability_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) notify: bool,
    #[cfg(feature = "test-clock")]
    pub(crate) clock: pillarbox_core::TestClock,
}

/// What an acknowledged [`enqueue_alone`](crate::RedisStorage::enqueue_alone), or a
/// [`confirm`](crate::RedisStorage::confirm) after the caller's own transaction, has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// For the primary alone. A failover may lose what was acknowledged shortly before.
    #[default]
    None,
    /// For replicas, by `WAIT`: a failover to one of them loses nothing. About half the rate of enqueues.
    Wait,
    /// For the disks of the primary and of replicas, by `WAITAOF`. Needs Redis 7.2.
    WaitAof,
}

impl RedisConfig {
    /// The most lanes an outbox can have: a claim looks at each.
    pub const HIGHEST_LANES: u16 = 256;

    /// Reads a URL: `redis://`, `rediss://`, `redis+unix://`, `redis+cluster://host:port,…` or
    /// `redis+sentinel://host:port,…/service`, with this backend's options under the prefix `outbox.`.
    ///
    /// # Errors
    /// `Misconfigured`, naming what is wrong with the URL or the option. It never repeats the URL, which may hold a password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        url::parse(url)
    }

    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            name: "outbox".to_owned(),
            lanes: None,
            head_policy: None,
            max_strikes: None,
            max_payload: None,
            durability: Durability::None,
            replicas: 1,
            durability_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            notify: true,
            #[cfg(feature = "test-clock")]
            clock: pillarbox_core::TestClock::new(),
        }
    }

    /// The outbox's name, 1 to 128 bytes: every key is `{name}:…`. Default `outbox`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many lanes ordering keys are spread over, 1 to 256. Default 32: more than there are relays, so that they rarely
    /// meet, and few enough that a claim looks at all of them in a few microseconds. Part of the stored layout.
    #[must_use]
    pub fn lanes(mut self, lanes: u16) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// What happens to a key whose head died. Default [`HeadPolicy::Continue`]: one bad message holds nobody up.
    #[must_use]
    pub fn head_policy(mut self, policy: HeadPolicy) -> Self {
        self.head_policy = Some(policy);
        self
    }

    /// How many strikes bury a message, at least 1. Default 3: alone with three dying relays is no coincidence.
    #[must_use]
    pub fn max_strikes(mut self, strikes: u32) -> Self {
        self.max_strikes = Some(strikes);
        self
    }

    /// What messages may measure. Default [`Limits::default`]: payloads up to 1 MiB.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.max_payload = Some(limits);
        self
    }

    /// What an enqueue outside a transaction waits for. Default [`Durability::None`]: the fastest, and what Redis itself promises.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many replicas [`Durability`] waits for. Default 1: the one that a failover promotes has it. `WaitAof` accepts 0, the
    /// primary's own disk.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long [`Durability`] waits. Default 1 s: replicas that are there answer within milliseconds.
    #[must_use]
    pub fn durability_timeout(mut self, timeout: Duration) -> Self {
        self.durability_timeout = timeout;
        self
    }

    /// How long an answer may take before the connection counts as dead. Default 10 s: above any pause of a healthy server,
    /// and well below a lease of 30 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How long connecting may take. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether an enqueue publishes a hint, so that waiting relays wake at once. Default yes. Without it they find messages at
    /// their next poll; a producer then needs no permission for channels.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// The clock that is added to the server's own. Clones share it.
    #[cfg(feature = "test-clock")]
    #[must_use]
    pub fn test_clock(mut self, clock: pillarbox_core::TestClock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(misconfigured(text));
        let unusable = |letter: char| letter.is_control() || letter == '{' || letter == '}';
        if self.name.is_empty() || self.name.len() > 128 || self.name.contains(unusable) {
            return wrong(format!(
                "`outbox.name` is {:?}; it has 1 to 128 bytes, without braces and control characters",
                self.name
            ));
        }
        if let Some(lanes @ (0 | 257..)) = self.lanes {
            return wrong(format!("`outbox.lanes` is {lanes}; set it to 1 to {}", Self::HIGHEST_LANES));
        }
        if self.max_strikes == Some(0) {
            return wrong("`outbox.max_strikes` is 0; set it to 1 or more".to_owned());
        }
        if self.durability == Durability::Wait && self.replicas == 0 {
            return wrong(
                "`outbox.replicas` is 0, and `outbox.durability=wait` waits for replicas".to_owned(),
            );
        }
        let timeouts = [
            ("durability_timeout", self.durability_timeout),
            ("response_timeout", self.response_timeout),
            ("connect_timeout", self.connect_timeout),
        ];
        for (name, timeout) in timeouts {
            if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(3_600) {
                return wrong(format!("`outbox.{name}` is {timeout:?}; set it to 1ms to 1h"));
            }
        }
        Ok(())
    }

    /// What the tests add to the server's clock, in microseconds.
    #[cfg_attr(not(feature = "test-clock"), allow(clippy::unused_self, reason = "the clock is a feature"))]
    pub(crate) fn clock_offset(&self) -> i64 {
        #[cfg(feature = "test-clock")]
        return self.clock.offset();
        #[cfg(not(feature = "test-clock"))]
        0
    }
}

impl fmt::Debug for RedisConfig {
    /// Shows the place and the name, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisConfig")
            .field("place", &self.target.place())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}
