use crate::dialect::{Dialect, Options};
use crate::url;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits};
use std::fmt;
use std::time::Duration;

/// Where an outbox is, and its settings.
///
/// The settings of the outbox itself (head policy, strikes, largest payload, retention) are stored with it by the first handle
/// that opens it. A later one takes what is stored; one that asks for something else is `Misconfigured`.
pub struct SqlConfig<D: Dialect> {
    pub(crate) options: Options<D>,
    pub(crate) place: String,
    pub(crate) name: String,
    pub(crate) head_policy: Option<HeadPolicy>,
    pub(crate) max_strikes: Option<u32>,
    pub(crate) max_payload: Option<Limits>,
    pub(crate) keep_published: Option<bool>,
    pub(crate) published_partitions: Option<Duration>,
    pub(crate) max_connections: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) notify: bool,
    pub(crate) transaction_pooler: bool,
    #[cfg(feature = "test-clock")]
    pub(crate) clock: pillarbox_core::TestClock,
}

impl<D: Dialect> SqlConfig<D> {
    /// Reads a URL: the client's own, with this backend's options under the prefix `outbox.`.
    ///
    /// # Errors
    /// `Misconfigured`, naming what is wrong with the URL or the option. It never repeats the URL, which may hold a password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        url::parse(url)
    }

    /// An outbox where the client's own options say.
    ///
    /// # Errors
    /// `Misconfigured` if a database there cannot hold an outbox, such as SQLite's in memory.
    pub fn new(options: Options<D>) -> Result<Self, Error> {
        let place = D::place(&options);
        Ok(Self {
            options: D::prepare(options)?,
            place,
            name: "pillarbox".to_owned(),
            head_policy: None,
            max_strikes: None,
            max_payload: None,
            keep_published: None,
            published_partitions: None,
            max_connections: 8,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(20),
            notify: true,
            transaction_pooler: false,
            #[cfg(feature = "test-clock")]
            clock: pillarbox_core::TestClock::new(),
        })
    }

    /// The outbox's name, 1 to 40 lower-case letters, digits and underscores, with a letter first: what its tables' names begin
    /// with. Default `pillarbox`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
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

    /// Whether published messages are kept until they are purged. Default no: a table that only grows slows its database down,
    /// and what was published is at the broker.
    #[must_use]
    pub fn keep_published(mut self, keep: bool) -> Self {
        self.keep_published = Some(keep);
        self
    }

    /// Keeps published messages in a table of their own, in partitions of so long a time each: whole hours, up to 366 days. PostgreSQL only.
    /// [`purge_published`](pillarbox_core::Admin::purge_published) then drops a whole partition at a time as soon as the last message
    /// in it is old enough, which leaves nothing for vacuum to do, and makes the next ones; so does a migration. It is to be called more
    /// often than that, by a user that owns the tables; what is published without a partition is kept all the same, and deleted row by row.
    #[must_use]
    pub fn published_partitions(mut self, length: Duration) -> Self {
        self.published_partitions = Some(length);
        self
    }

    /// How many connections a handle opens at most, at least 1. Default 8: a relay has a few calls in flight at a time, and holds
    /// no connection while it publishes.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long a call waits for a connection, 1 ms to 1 h. Default 10 s: well below a lease of 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one transaction of the outbox's own may take before its connection counts as dead, 1 ms to 1 h. Default 20 s: above any
    /// wait for a lock or for SQLite's only writer, and below a lease of 30 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Whether a commit wakes waiting relays at once, where the database can tell them (`NOTIFY` in PostgreSQL). Default yes. Without it
    /// they find messages at their next poll, and many small transactions commit faster: PostgreSQL writes notifications one
    /// transaction at a time.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Whether a pooler in transaction mode, such as PgBouncer, stands before PostgreSQL: default no. Then statements are prepared without
    /// a name, since the next transaction may run on another connection, and relays are not woken but poll, since such a pooler hands no
    /// notifications on; enqueueing notifies all the same, for relays that are connected directly.
    #[must_use]
    pub fn transaction_pooler(mut self, stands_before: bool) -> Self {
        self.transaction_pooler = stands_before;
        self
    }

    /// The clock that is added to the database's own. Clones share it.
    #[cfg(feature = "test-clock")]
    #[must_use]
    pub fn test_clock(mut self, clock: pillarbox_core::TestClock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(misconfigured(text));
        let usable = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        let begins = self.name.starts_with(|first: char| first.is_ascii_lowercase());
        if !begins || self.name.len() > 40 || !self.name.chars().all(usable) {
            return wrong(format!(
                "`outbox.name` is {:?}; it has 1 to 40 lower-case letters, digits and underscores, and a letter first",
                self.name
            ));
        }
        if self.max_strikes == Some(0) {
            return wrong("`outbox.max_strikes` is 0; set it to 1 or more".to_owned());
        }
        if self.max_connections == 0 {
            return wrong("`outbox.max_connections` is 0; set it to 1 or more".to_owned());
        }
        if self.transaction_pooler && !D::NUMBERED {
            return wrong(format!(
                "`outbox.transaction_pooler` is for PostgreSQL, and this is {}",
                D::PRODUCT
            ));
        }
        if let Some(length) = self.published_partitions {
            let hour = Duration::from_secs(3_600);
            if !D::HAS_PARTITIONS {
                return wrong(format!(
                    "`outbox.published_partitions` is for PostgreSQL, and this is {}",
                    D::PRODUCT
                ));
            }
            if length < hour || length > 24 * 366 * hour || length.as_nanos() % hour.as_nanos() != 0 {
                return wrong(format!(
                    "`outbox.published_partitions` is {length:?}; set it to whole hours, 1h to 8784h"
                ));
            }
            if self.keep_published == Some(false) {
                return wrong(
                    "`outbox.keep_published` is false, and `outbox.published_partitions` keeps them; leave one out"
                        .to_owned(),
                );
            }
        }
        let timeouts =
            [("connect_timeout", self.connect_timeout), ("response_timeout", self.response_timeout)];
        for (name, timeout) in timeouts {
            if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(3_600) {
                return wrong(format!("`outbox.{name}` is {timeout:?}; set it to 1ms to 1h"));
            }
        }
        Ok(())
    }

    /// What the tests add to the database's clock, in microseconds.
    #[cfg_attr(not(feature = "test-clock"), allow(clippy::unused_self, reason = "the clock is a feature"))]
    pub(crate) fn clock_offset(&self) -> i64 {
        #[cfg(feature = "test-clock")]
        return self.clock.offset();
        #[cfg(not(feature = "test-clock"))]
        0
    }
}

impl<D: Dialect> Clone for SqlConfig<D> {
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            place: self.place.clone(),
            name: self.name.clone(),
            head_policy: self.head_policy,
            max_strikes: self.max_strikes,
            max_payload: self.max_payload,
            keep_published: self.keep_published,
            published_partitions: self.published_partitions,
            max_connections: self.max_connections,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            notify: self.notify,
            transaction_pooler: self.transaction_pooler,
            #[cfg(feature = "test-clock")]
            clock: self.clock.clone(),
        }
    }
}

impl<D: Dialect> fmt::Debug for SqlConfig<D> {
    /// Shows the place and the name, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SqlConfig")
            .field("place", &self.place)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}
