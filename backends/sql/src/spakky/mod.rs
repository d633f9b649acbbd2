//! The table of the Python framework Spakky, `spakky_event_outbox`: relays of both run side by side on it.
//!
//! | column | holds |
//! | --- | --- |
//! | `id` | a UUID |
//! | `event_name` | the name, which is the topic here |
//! | `payload` | the bytes |
//! | `headers` | a JSON object of strings; `content-type` among them is the content type |
//! | `created_at` | when it was made |
//! | `published_at` | when it was sent; null until then |
//! | `retry_count` | failed sends; at the limit (`outbox.max_retries`) the message is dead |
//! | `claimed_at` | the claim: others leave the message alone until it is older than the claim timeout |
//!
//! # What this layout cannot promise
//!
//! - **No order per key**: there is no column for a key. A message with one is refused, and so is one with a time of delivery.
//! - **No fence**: a claim is a time. This relay compares the exact time that it wrote, so it never settles what another has taken since;
//!   the original does not compare, and may mark as sent what this relay holds by then.
//! - **Clocks**: the original judges a claim by the clock of its own machine. This relay uses the database's, and renews far below the
//!   claim timeout, so only a clock that is ahead by most of the timeout takes a message early. It is then sent twice.
//! - **A dead relay's messages wait for the claim timeout**, which has to be the same on both sides (300 s by default there), and are not
//!   counted: a message that kills its relay is never buried for it.
//! - **No reasons**: why a message failed or died is not kept; the log has it.
//! - **One handle**: what a token holds is remembered by the handle that claimed it (and its clones). Another handle answers `Fenced`.
//! - An id that is enqueued twice is ignored while the first row is there.

mod admin;
mod enqueue;
mod record;
mod runs;

use crate::config::misconfigured;
use crate::dialect::Dialect as _;
use crate::session::Failure;
use crate::transaction::{Transaction as Own, retried, within};
use crate::{SqlConfig, SqlStorage, error};
use pillarbox_core::{
    Admin, Claim, Claimed, Error, ErrorKind, HeadPolicy, Order, Outcome, Renewed, RepeatedIds, Settled,
    Settlement, Settlements, Storage, StorageGuarantees, Timestamp, Token, UrlOptions, Verdict, Wakeup,
};
use record::{answer, id_of};
use runs::{Held, Runs};
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Row as _};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Spakky's outbox in PostgreSQL. Clones share one pool of connections, and what they hold.
#[derive(Clone)]
pub struct SpakkyStorage(Arc<Shared>);

struct Shared {
    pool: PgPool,
    place: String,
    /// Begins a transaction.
    begin: String,
    response_timeout: Duration,
    claim_timeout: Duration,
    max_retries: i32,
    runs: Mutex<Runs>,
    #[cfg(feature = "test-clock")]
    clock: pillarbox_core::TestClock,
}

const MAX_RUN: u32 = 1_000;
/// As many micros since the epoch as an argument says, as a time.
macro_rules! at {
    ($number:literal) => {
        concat!("(timestamptz 'epoch' + $", $number, " * interval '1 microsecond')")
    };
}
use at;

impl SpakkyStorage {
    /// Whether a URL asks for this layout.
    pub(crate) fn is_meant(url: &str) -> bool {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "outbox.layout" && value == "spakky")
    }

    /// Opens the table that a URL names: `postgres://…?outbox.layout=spakky`, with `outbox.claim_timeout` (default 300s, as in the
    /// original: it must be the same there), `outbox.max_retries` (default 5, as there), and `outbox.max_connections`,
    /// `outbox.connect_timeout` and `outbox.response_timeout` as in the outbox's own layout.
    ///
    /// # Errors
    /// `Misconfigured` for a URL, an option or a table that cannot be used; `Unavailable` if the server does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn open(url: &str) -> Result<Self, Error> {
        #[cfg(feature = "test-clock")]
        let clock = Clock::new();
        #[cfg(not(feature = "test-clock"))]
        let clock = Clock;
        Self::open_with(url, clock).await
    }

    /// As [`open`](Self::open), with a clock that is added to the database's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "test-clock")]
    pub async fn open_at(url: &str, clock: pillarbox_core::TestClock) -> Result<Self, Error> {
        Self::open_with(url, clock).await
    }

    async fn open_with(url: &str, clock: Clock) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut options = UrlOptions::new("outbox.", pairs.clone());
        if options.text("layout")?.as_deref() != Some("spakky") {
            return Err(misconfigured(
                "the URL does not ask for this layout; add `outbox.layout=spakky`".to_owned(),
            ));
        }
        let claim_timeout = options.duration("claim_timeout")?.unwrap_or(Duration::from_secs(300));
        let max_retries: i32 = options.parsed("max_retries", "a whole number from 1 up")?.unwrap_or(5);
        let connections: Option<u32> = options.parsed("max_connections", "a whole number from 1 up")?;
        let connect_timeout = options.duration("connect_timeout")?;
        let response_timeout = options.duration("response_timeout")?;
        options.finish()?;
        if claim_timeout < Duration::from_secs(1) || max_retries < 1 {
            return Err(misconfigured(
                "`outbox.claim_timeout` is at least 1s, and `outbox.max_retries` at least 1".to_owned(),
            ));
        }
        let client = {
            let mut client = url::form_urlencoded::Serializer::new(String::new());
            client.extend_pairs(pairs.iter().filter(|(name, _)| !name.starts_with("outbox.")));
            client.finish()
        };
        // The own layout's reader knows what the client's options are, and how to say what is wrong without the URL.
        let mut config = SqlConfig::<Postgres>::from_url(&format!("{base}?{client}"))?;
        config.max_connections = connections.unwrap_or(config.max_connections);
        config.connect_timeout = connect_timeout.unwrap_or(config.connect_timeout);
        config.response_timeout = response_timeout.unwrap_or(config.response_timeout);
        config.check()?;
        let place = config.place.clone();
        let map = |failure| error::map::<Postgres>(failure, "open", &place).not_applied();
        let pool = SqlStorage::pool_of(&config, config.max_connections).await.map_err(map)?;
        let look = async {
            Postgres::check(&mut *pool.acquire().await.map_err(map)?, &place).await?;
            sqlx::query("SELECT id, event_name, payload, headers, created_at, published_at, retry_count, claimed_at FROM spakky_event_outbox LIMIT 0")
                .execute(&pool)
                .await
                .map_err(|failure| {
                    misconfigured(format!("PostgreSQL at {place} has no usable table `spakky_event_outbox`; Spakky's own migrations make it"))
                        .caused_by(failure)
                })
        };
        within::<Postgres, _>(&place, config.response_timeout, "open", look).await?;
        #[cfg(not(feature = "test-clock"))]
        let Clock = clock;
        Ok(Self(Arc::new(Shared {
            pool,
            place,
            begin: Postgres::begin(&config),
            response_timeout: config.response_timeout,
            claim_timeout,
            max_retries,
            runs: Mutex::new(Runs::default()),
            #[cfg(feature = "test-clock")]
            clock,
        })))
    }

    /// The pool of connections that this handle uses; an application may use it too.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    fn offset(&self) -> i64 {
        #[cfg(feature = "test-clock")]
        return self.0.clock.offset();
        #[cfg(not(feature = "test-clock"))]
        0
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self) -> Result<(Own<Postgres>, Timestamp), Failure> {
        let mut transaction = Own::begin(&self.0.pool, &None, &self.0.begin).await?;
        let now: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $1")
                .bind(self.offset())
                .fetch_one(&mut *transaction)
                .await?;
        Ok((transaction, Timestamp::from_micros(now)))
    }

    /// Runs a whole transaction again while it collides with others: the original changes rows in no particular order.
    async fn retried<T, F>(&self, operation: &'static str, transaction: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retried::<Postgres, T, F>(&self.0.place, self.0.response_timeout, operation, transaction).await
    }

    fn error(&self, failure: Failure, operation: &'static str) -> Error {
        failure.into_error::<Postgres>(operation, &self.0.place)
    }

    async fn try_claim(&self, claim: &Claim) -> Result<Claimed, Failure> {
        let (mut transaction, now) = self.begin().await?;
        let held = self.runs().of_nonce(claim.nonce);
        if let Some((token, held)) = held {
            // The same claim again: what it got, if its commit went through and nobody has taken it since.
            let rows = sqlx::query(concat!(
                "SELECT uuid_send(id), event_name, payload, headers::text, (extract(epoch FROM created_at) * 1000000)::bigint, retry_count ",
                "FROM spakky_event_outbox WHERE id = ANY($1) AND published_at IS NULL AND (extract(epoch FROM claimed_at) * 1000000)::bigint = ANY($2)"
            ))
            .bind(&held.ids)
            .bind(&held.claimed_at)
            .fetch_all(&mut *transaction)
            .await?;
            if rows.len() == held.ids.len() && held.lease_until > now {
                transaction.roll_back().await;
                return Ok(answer(now, token, &held, &rows)?);
            }
        }
        if claim.limit == 0 || claim.solo {
            transaction.roll_back().await;
            return Ok(Claimed { now, ..Claimed::default() });
        }
        let rows = sqlx::query(concat!(
            // Materialized: a plan may run a plain subquery several times, and then claims more than its limit.
            "WITH chosen AS MATERIALIZED (SELECT id FROM spakky_event_outbox ",
            "WHERE published_at IS NULL AND retry_count < $3 AND (claimed_at IS NULL OR claimed_at < ", at!(2), ") ",
            "ORDER BY created_at LIMIT $4 FOR UPDATE SKIP LOCKED) ",
            "UPDATE spakky_event_outbox o SET claimed_at = ", at!(1), " FROM chosen WHERE o.id = chosen.id ",
            "RETURNING uuid_send(o.id), event_name, payload, headers::text, (extract(epoch FROM created_at) * 1000000)::bigint, retry_count"
        ))
        .bind(now.as_micros())
        .bind(now.before(self.0.claim_timeout).as_micros())
        .bind(self.0.max_retries)
        .bind(i64::from(claim.limit.min(MAX_RUN)))
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            let first: Option<i64> = sqlx::query_scalar(
                "SELECT (extract(epoch FROM min(claimed_at)) * 1000000)::bigint FROM spakky_event_outbox WHERE published_at IS NULL AND retry_count < $1",
            )
            .bind(self.0.max_retries)
            .fetch_one(&mut *transaction)
            .await?;
            transaction.roll_back().await;
            let next_due =
                first.map(|first| Timestamp::from_micros(first + 1).after(self.0.claim_timeout).max(now));
            return Ok(Claimed { now, next_due, ..Claimed::default() });
        }
        let mut rows = rows;
        rows.sort_by_key(|row| {
            (row.try_get::<i64, _>(4).unwrap_or_default(), row.try_get::<Vec<u8>, _>(0).unwrap_or_default())
        });
        let ids: Vec<Uuid> = rows.iter().map(id_of).collect::<Result<_, _>>()?;
        let lease_until = now.after(claim.lease.min(self.0.claim_timeout));
        let held = Held { ids, claimed_at: vec![now.as_micros()], lease_until, since: now };
        // Noted before the commit, so that a repetition finds what a lost answer has claimed.
        let token = self.runs().note(claim.nonce, held.clone());
        transaction.commit().await?;
        Ok(answer(now, token, &held, &rows)?)
    }

    async fn try_renew(&self, token: Token, lease: Duration) -> Result<Renewed, Failure> {
        let (mut transaction, now) = self.begin().await?;
        let known = self.runs().of_token(token);
        let held = match known {
            Ok(held) => held,
            Err(outcome) => {
                transaction.roll_back().await;
                return Ok(Renewed { outcome, at: now, lease_until: None });
            }
        };
        let renewed = sqlx::query(concat!(
            "UPDATE spakky_event_outbox SET claimed_at = ",
            at!(1),
            " WHERE id = ANY($2) AND published_at IS NULL ",
            "AND (extract(epoch FROM claimed_at) * 1000000)::bigint = ANY($3)"
        ))
        .bind(now.as_micros())
        .bind(&held.ids)
        .bind(&held.claimed_at)
        .execute(&mut *transaction)
        .await?;
        if renewed.rows_affected() != held.ids.len() as u64 {
            transaction.roll_back().await;
            return Ok(Renewed { outcome: Outcome::Fenced, at: now, lease_until: None });
        }
        let lease_until = held.lease_until.max(now.after(lease.min(self.0.claim_timeout)));
        self.runs().renewed(token, now.as_micros(), lease_until);
        transaction.commit().await?;
        Ok(Renewed { outcome: Outcome::Applied, at: now, lease_until: Some(lease_until) })
    }

    async fn try_settle(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Failure> {
        let (mut transaction, now) = self.begin().await?;
        let known = self.runs().of_token(token);
        let held = match known {
            Ok(held) => held,
            Err(outcome) => {
                transaction.roll_back().await;
                return Ok(Settled { outcome, at: now });
            }
        };
        let current: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM spakky_event_outbox WHERE id = ANY($1) AND published_at IS NULL \
             AND (extract(epoch FROM claimed_at) * 1000000)::bigint = ANY($2) ORDER BY id FOR UPDATE",
        )
        .bind(&held.ids)
        .bind(&held.claimed_at)
        .fetch_all(&mut *transaction)
        .await?;
        if current.len() != held.ids.len() {
            transaction.roll_back().await;
            return Ok(Settled { outcome: Outcome::Fenced, at: now });
        }
        for (change, ids) in self.changes(&held, settlement, now)? {
            let (published, charged, claimed_at) = match change {
                Change::Published => (Some(now.as_micros()), 0, None),
                Change::Dead => (None, self.0.max_retries, None),
                Change::Back { charged, due_at } => (None, i32::from(charged), due_at),
            };
            sqlx::query(concat!(
                "UPDATE spakky_event_outbox SET published_at = ",
                at!(1),
                ", retry_count = retry_count + $2, claimed_at = ",
                at!(3),
                " WHERE id = ANY($4)"
            ))
            .bind(published)
            .bind(charged)
            .bind(claimed_at)
            .bind(&ids)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        self.runs().settled(token);
        Ok(Settled { outcome: Outcome::Applied, at: now })
    }

    /// What becomes of each message. A delay is a claim that is as old as will make it lapse in time.
    fn changes(
        &self,
        held: &Held,
        settlement: Settlement<'_>,
        now: Timestamp,
    ) -> Result<BTreeMap<Change, Vec<Uuid>>, Failure> {
        let lapses = |after: Duration| {
            (!after.is_zero()).then(|| now.after(after).before(self.0.claim_timeout).as_micros() - 1)
        };
        let mut changes: BTreeMap<Change, Vec<Uuid>> = BTreeMap::new();
        match settlement {
            Settlement::HandBack { after } => {
                let change = Change::Back { charged: false, due_at: lapses(after) };
                changes.insert(change, held.ids.clone());
            }
            Settlement::Verdicts(verdicts) => {
                if verdicts.len() != held.ids.len() {
                    let (messages, given) = (held.ids.len(), verdicts.len());
                    return Err(Failure::Refused(
                        Error::new(ErrorKind::Rejected, "settle")
                            .describe(format!("a run has {messages} messages and was given {given} verdicts"))
                            .not_applied(),
                    ));
                }
                for (id, verdict) in held.ids.iter().zip(verdicts) {
                    let change = match verdict {
                        Verdict::Published => Change::Published,
                        Verdict::Retry { after, .. } => {
                            Change::Back { charged: true, due_at: lapses(*after) }
                        }
                        Verdict::Release { after } => Change::Back { charged: false, due_at: lapses(*after) },
                        Verdict::Bury { reason } => {
                            tracing::warn!(%id, %reason, "a message is given up; its table has no room for the reason");
                            Change::Dead
                        }
                    };
                    changes.entry(change).or_default().push(*id);
                }
            }
        }
        Ok(changes)
    }
}

/// What becomes of messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Published,
    Dead,
    Back { charged: bool, due_at: Option<i64> },
}

#[cfg(feature = "test-clock")]
type Clock = pillarbox_core::TestClock;
/// The place of the tests' clock, where there is none.
#[cfg(not(feature = "test-clock"))]
struct Clock;

impl Storage for SpakkyStorage {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::InsertOrdered,
            repeated_ids: RepeatedIds::Ignored,
            head_policy: HeadPolicy::Continue,
            max_strikes: StorageGuarantees::DEFAULT_MAX_STRIKES,
            max_run: MAX_RUN,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.retried("claim", || self.try_claim(&claim)).await
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let mut answers = Vec::with_capacity(tokens.len());
        for token in tokens {
            answers.push(self.retried("renew", || self.try_renew(*token, lease)).await?);
        }
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        for (token, settlement) in settlements.iter() {
            if let Ok(held) = self.runs().of_token(token) {
                self.changes(&held, settlement, Timestamp::EPOCH)
                    .map_err(|failure| self.error(failure, "settle"))?;
            }
        }
        let mut answers = Vec::with_capacity(settlements.len());
        for (token, settlement) in settlements.iter() {
            answers.push(self.retried("settle", || self.try_settle(token, settlement)).await?);
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl fmt::Debug for SpakkyStorage {
    /// Shows the place, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SpakkyStorage").field("place", &self.0.place).finish_non_exhaustive()
    }
}
