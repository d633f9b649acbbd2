use crate::dialect::Dialect;
use crate::layout::Tables;
use crate::marks::Marks;
use crate::session::{Failure, Session, words};
use crate::settings::{self, Settings};
use crate::transaction::{Turns, retried, within};
use crate::{SqlConfig, claim, error, migrate, settle};
use pillarbox_core::{
    Admin, Claim, Claimed, Error, Order, Renewed, RepeatedIds, Settled, Settlement, Settlements, Storage,
    StorageGuarantees, Token, Wakeup,
};
use sqlx::pool::PoolOptions;
use sqlx::{Connection as _, Pool};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

/// An outbox in a SQL database. Clones share one pool of connections.
pub struct SqlStorage<D: Dialect>(pub(crate) Arc<Shared<D>>);

pub(crate) struct Shared<D: Dialect> {
    pub(crate) config: SqlConfig<D>,
    pub(crate) settings: Settings,
    pub(crate) tables: Tables,
    pub(crate) pool: Pool<D>,
    /// Begins a transaction of the outbox's own.
    pub(crate) begin: String,
    pub(crate) turns: Turns,
    /// What a message has weighed lately, in bytes: it bounds how many are read at once.
    pub(crate) weight: AtomicUsize,
    /// Whether the last claim found something.
    pub(crate) had_work: AtomicBool,
    pub(crate) marks: Marks,
}

/// The longest run, and the most messages of one claim: a longer one holds its lane up and gains nothing.
pub(crate) const MAX_RUN: u32 = 1_000;
/// A connection that was used so lately need not be asked whether it still works.
const FRESH: Duration = Duration::from_millis(100);
/// So many runs are settled in one transaction at most.
const RUNS_PER_CALL: usize = 64;

impl<D: Dialect> SqlStorage<D> {
    /// Opens the outbox that a URL names: see [`SqlConfig::from_url`].
    ///
    /// # Errors
    /// `Misconfigured` for a URL, an option or a database that cannot be used, naming it, and for a schema that is missing or of
    /// another version; `Unavailable` if the server does not answer, naming its host and port.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most the settings of a new outbox stored.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(SqlConfig::from_url(url)?).await
    }

    /// Opens an outbox: connects, checks the database and its schema, and stores or compares the outbox's settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: SqlConfig<D>) -> Result<Self, Error> {
        config.check()?;
        let map = |failure| error::map::<D>(failure, "open", &config.place).not_applied();
        let pool = Self::pool_of(&config, config.max_connections).await.map_err(map)?;
        let (place, limit) = (config.place.clone(), config.response_timeout);
        within::<D, Self>(&place, limit, "open", Self::prepare(config, pool)).await
    }

    /// Opens a first connection.
    pub(crate) async fn pool_of(config: &SqlConfig<D>, connections: u32) -> Result<Pool<D>, sqlx::Error> {
        // A connection that broke while it lay idle may never tell; then the next one is tried.
        let patience = config.connect_timeout / 4;
        let pool = PoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(config.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut D::Connection, meta| {
                let is_fresh = meta.idle_for < FRESH;
                Box::pin(async move {
                    if is_fresh {
                        return Ok(true);
                    }
                    match tokio::time::timeout(patience, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                    }
                })
            });
        D::pool(pool, config).connect_with(D::connecting(config)).await
    }

    /// Checks the database and the schema, and agrees on the settings.
    async fn prepare(config: SqlConfig<D>, pool: Pool<D>) -> Result<Self, Error> {
        let tables = Tables::new(&config.name);
        let map = |failure| error::map::<D>(failure, "open", &config.place).not_applied();
        // In transactions, so that a pooler keeps to one connection.
        let mut reading = pool.begin_with(D::BEGIN_READ.unwrap_or(D::BEGIN)).await.map_err(map)?;
        D::check(&mut reading, &config.place).await?;
        let mut stored = migrate::stored_settings::<D>(&mut reading, &tables).await.map_err(map)?;
        reading.rollback().await.map_err(map)?;
        settings::check_version(&config, &stored)?;
        if settings::are_missing(&stored) {
            let mut writing = pool.begin_with(D::BEGIN).await.map_err(map)?;
            for (name, value) in settings::wanted(&config) {
                let sql = words::<D>(&tables, D::KEEP_SETTING);
                let arguments = crate::session::arguments![name, value.as_str()];
                D::execute(&mut writing, sql, arguments, false).await.map_err(map)?;
            }
            stored = migrate::stored_settings::<D>(&mut writing, &tables).await.map_err(map)?;
            writing.commit().await.map_err(map)?;
        }
        let settings = settings::agreed(&config, &stored)?;
        if config.transaction_pooler {
            let place = &config.place;
            tracing::info!(place, "behind a pooler in transaction mode relays are not woken, and poll");
        }
        let weight = AtomicUsize::new(4 * 1024);
        let had_work = AtomicBool::new(false);
        let marks = Marks::new();
        let begin = D::begin(&config);
        let turns = D::BEGIN_READ.map(|_| Arc::default());
        Ok(Self(Arc::new(Shared { config, settings, tables, pool, begin, turns, weight, had_work, marks })))
    }

    /// The outbox's name.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// The pool of connections that this handle uses; an application may use it too. On MySQL and MariaDB its sessions are set to `READ
    /// COMMITTED`, and end when they are idle for long: see [the crate](crate#each-database).
    pub fn pool(&self) -> &Pool<D> {
        &self.0.pool
    }

    pub(crate) async fn begin(&self) -> Result<Session<'_, D>, Failure> {
        Session::begin(self, &self.0.turns, &self.0.begin).await
    }

    pub(crate) fn now_offset(&self) -> i64 {
        self.0.config.clock_offset()
    }

    /// Runs a whole transaction again while it collides with others.
    pub(crate) async fn retried<T, F>(
        &self,
        operation: &'static str,
        transaction: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let config = &self.0.config;
        retried::<D, T, F>(&config.place, config.response_timeout, operation, transaction).await
    }
}

impl<D: Dialect> Storage for SqlStorage<D> {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::InsertOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: self.0.settings.head_policy,
            max_strikes: self.0.settings.max_strikes,
            max_run: MAX_RUN,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.retried("claim", || claim::claim(self, &claim)).await
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.retried("renew", || settle::renew(self, tokens, lease)).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let runs: Vec<(Token, Settlement<'_>)> = settlements.iter().collect();
        if runs.len() > RUNS_PER_CALL {
            self.retried("settle", || settle::check(self, &runs)).await?;
        }
        let mut answers = Vec::with_capacity(runs.len());
        for runs in runs.chunks(RUNS_PER_CALL) {
            answers.extend(self.retried("settle", || settle::settle(self, runs)).await?);
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        (D::HAS_HINTS && self.0.config.notify && !self.0.config.transaction_pooler).then_some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl<D: Dialect> Clone for SqlStorage<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Dialect> fmt::Debug for SqlStorage<D> {
    /// Shows the place and the settings, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SqlStorage")
            .field("place", &self.0.config.place)
            .field("name", &self.0.config.name)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
