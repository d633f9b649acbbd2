use crate::url;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits};
use std::fmt;
use std::time::Duration;

/// Where an outbox is, and its settings.
///
/// The settings of the outbox itself (lanes, head policy, strikes, largest payload, retention) are stored with it by the first
/// handle that opens it. A later one takes what is stored; one that asks for something else is `Misconfigured`.
#[derive(Clone)]
pub struct MongoConfig {
    /// With the credentials; empty where the application brings its own client.
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) name: String,
    pub(crate) lanes: Option<u16>,
    pub(crate) head_policy: Option<HeadPolicy>,
    pub(crate) max_strikes: Option<u32>,
    pub(crate) max_payload: Option<Limits>,
    pub(crate) keep_published: Option<bool>,
    pub(crate) response_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    #[cfg(feature = "test-clock")]
    pub(crate) clock: pillarbox_core::TestClock,
}

impl MongoConfig {
    /// The most lanes an outbox can have: MongoDB merges as many index scans, and no more, into one order.
    pub const HIGHEST_LANES: u16 = 200;

    /// Reads a URL, `mongodb://` or `mongodb+srv://`, that names a database, with this backend's options under the prefix
    /// `outbox.`; all other options are the client's own.
    ///
    /// # Errors
    /// `Misconfigured`, naming what is wrong with the URL or the option. It never repeats the URL, which may hold a password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        url::parse(url)
    }

    /// An outbox in `database`, for an application that brings its own client: see
    /// [`MongoStorage::with_client`](crate::MongoStorage::with_client).
    pub fn new(database: impl Into<String>) -> Self {
        Self {
            url: String::new(),
            database: database.into(),
            name: "outbox".to_owned(),
            lanes: None,
            head_policy: None,
            max_strikes: None,
            max_payload: None,
            keep_published: None,
            response_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            #[cfg(feature = "test-clock")]
            clock: pillarbox_core::TestClock::new(),
        }
    }

    /// The outbox's name, 1 to 64 bytes: every collection is `name.…`. Default `outbox`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many lanes ordering keys are spread over, 1 to 200. Default 32: more than there are relays, so that they rarely
    /// meet, and few enough that a claim reads the leases of all of them at once. Part of the stored layout.
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

    /// What messages may measure. Default [`Limits::default`]: payloads up to 1 MiB. A document has 16 MB at most.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.max_payload = Some(limits);
        self
    }

    /// Whether published messages are moved to the collection `name.published`, until they are purged, instead of deleted.
    /// Default no. It costs a second write of every message, within a transaction.
    #[must_use]
    pub fn keep_published(mut self, keep: bool) -> Self {
        self.keep_published = Some(keep);
        self
    }

    /// How long a call may take as a whole. Default 10 s: above any pause of a healthy server and most elections, and well
    /// below a lease of 30 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How long connecting, and finding a primary, may take. Default 5 s. Where the application brings its own client, that
    /// client's own settings count instead.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
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
        let unusable = |letter: char| letter.is_control() || letter == '$';
        if self.name.is_empty()
            || self.name.len() > 64
            || self.name.contains(unusable)
            || self.name.starts_with("system.")
        {
            return wrong(format!(
                "`outbox.name` is {:?}; it has 1 to 64 bytes, without `$` and control characters, and does not begin with `system.`",
                self.name
            ));
        }
        if self.database.is_empty() {
            return wrong("no database is named: write `mongodb://host:port/database`".to_owned());
        }
        if let Some(lanes @ (0 | 201..)) = self.lanes {
            return wrong(format!("`outbox.lanes` is {lanes}; set it to 1 to {}", Self::HIGHEST_LANES));
        }
        if self.max_strikes == Some(0) {
            return wrong("`outbox.max_strikes` is 0; set it to 1 or more".to_owned());
        }
        let timeouts =
            [("response_timeout", self.response_timeout), ("connect_timeout", self.connect_timeout)];
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

impl fmt::Debug for MongoConfig {
    /// Shows the database and the name, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MongoConfig")
            .field("database", &self.database)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}
