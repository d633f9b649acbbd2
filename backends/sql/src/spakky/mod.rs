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
mod runs;

use crate::config::misconfigured;
use crate::dialect::Dialect as _;
use crate::error;
use crate::session::Failure;
use pillarbox_core::{
    Admin, BoxFuture, Claim, Claimed, Content, Enqueue, EnqueueAlone, Entry, Error, ErrorKind, HeadPolicy,
    Headers, Limits, Message, MessageId, Order, Outcome, Renewed, RepeatedIds, Run, Settled, Settlement,
    Settlements, Storage, StorageGuarantees, Timestamp, Token, Undecodable, UrlOptions, Verdict, Wakeup,
};
use runs::{Held, Runs};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{PgConnection, Postgres, Row as _, Transaction};
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

impl SpakkyStorage {
    /// Whether a URL asks for this layout.
    pub(crate) fn is_meant(url: &str) -> bool {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "outbox.layout" && value == "spakky")
    }

    /// Opens the table that a URL names: `postgres://…?outbox.layout=spakky`, with `outbox.claim_timeout` (default 300s, as in the
    /// original: it must be the same there), `outbox.max_retries` (default 5, as there) and `outbox.max_connections` (default 8).
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
        let connections: u32 = options.parsed("max_connections", "a whole number from 1 up")?.unwrap_or(8);
        options.finish()?;
        if claim_timeout < Duration::from_secs(1) || max_retries < 1 || connections < 1 {
            return Err(misconfigured(
                "`outbox.claim_timeout` is at least 1s, `outbox.max_retries` and `outbox.max_connections` at least 1".to_owned(),
            ));
        }
        let client = {
            let mut client = url::form_urlencoded::Serializer::new(String::new());
            client.extend_pairs(pairs.iter().filter(|(name, _)| !name.starts_with("outbox.")));
            client.finish()
        };
        // The own layout's reader knows what the client's options are, and how to say what is wrong without the URL.
        let config = crate::SqlConfig::<Postgres>::from_url(&format!("{base}?{client}"))?;
        let place = config.place.clone();
        let map = |failure| error::map::<Postgres>(failure, "open", &place).not_applied();
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(config.connect_timeout);
        let pool = pool.connect_with(config.options).await.map_err(map)?;
        Postgres::check(&mut *pool.acquire().await.map_err(map)?, &place).await?;
        sqlx::query("SELECT id, event_name, payload, headers, created_at, published_at, retry_count, claimed_at FROM spakky_event_outbox LIMIT 0")
            .execute(&pool)
            .await
            .map_err(|failure| {
                misconfigured(format!("PostgreSQL at {place} has no usable table `spakky_event_outbox`; Spakky's own migrations make it"))
                    .caused_by(failure)
            })?;
        #[cfg(not(feature = "test-clock"))]
        let Clock = clock;
        Ok(Self(Arc::new(Shared {
            pool,
            place,
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

    async fn begin(&self) -> Result<(Transaction<'static, Postgres>, Timestamp), sqlx::Error> {
        let mut transaction = self.0.pool.begin_with(Postgres::BEGIN).await?;
        let now: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $1")
                .bind(self.offset())
                .fetch_one(&mut *transaction)
                .await?;
        Ok((transaction, Timestamp::from_micros(now)))
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
                return Ok(answer(now, token, &held, &rows)?);
            }
        }
        if claim.limit == 0 || claim.solo {
            return Ok(Claimed { now, ..Claimed::default() });
        }
        let rows = sqlx::query(concat!(
            "UPDATE spakky_event_outbox SET claimed_at = ", at!(1), " WHERE id IN (SELECT id FROM spakky_event_outbox ",
            "WHERE published_at IS NULL AND retry_count < $3 AND (claimed_at IS NULL OR claimed_at < ", at!(2), ") ",
            "ORDER BY created_at LIMIT $4 FOR UPDATE SKIP LOCKED) ",
            "RETURNING uuid_send(id), event_name, payload, headers::text, (extract(epoch FROM created_at) * 1000000)::bigint, retry_count"
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
        transaction.commit().await.map_err(Failure::Commit)?;
        Ok(answer(now, token, &held, &rows)?)
    }

    async fn try_renew(&self, token: Token, lease: Duration) -> Result<Renewed, Failure> {
        let (mut transaction, now) = self.begin().await?;
        let held = match self.runs().of_token(token) {
            Ok(held) => held,
            Err(outcome) => return Ok(Renewed { outcome, at: now, lease_until: None }),
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
            return Ok(Renewed { outcome: Outcome::Fenced, at: now, lease_until: None });
        }
        let lease_until = held.lease_until.max(now.after(lease.min(self.0.claim_timeout)));
        self.runs().renewed(token, now.as_micros(), lease_until);
        transaction.commit().await.map_err(Failure::Commit)?;
        Ok(Renewed { outcome: Outcome::Applied, at: now, lease_until: Some(lease_until) })
    }

    async fn try_settle(&self, token: Token, settlement: Settlement<'_>) -> Result<Settled, Failure> {
        let (mut transaction, now) = self.begin().await?;
        let held = match self.runs().of_token(token) {
            Ok(held) => held,
            Err(outcome) => return Ok(Settled { outcome, at: now }),
        };
        let current: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM spakky_event_outbox WHERE id = ANY($1) AND published_at IS NULL \
             AND (extract(epoch FROM claimed_at) * 1000000)::bigint = ANY($2) FOR UPDATE",
        )
        .bind(&held.ids)
        .bind(&held.claimed_at)
        .fetch_all(&mut *transaction)
        .await?;
        if current.len() != held.ids.len() {
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
        transaction.commit().await.map_err(Failure::Commit)?;
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

    /// Adds messages to the transaction that is open on `connection`.
    ///
    /// # Errors
    /// `Rejected` for a message that this layout cannot hold, and then nothing is written; else any kind, and then the transaction must be
    /// rolled back.
    ///
    /// # Cancel safety
    /// After the future was dropped some of the messages may be part of the transaction: roll it back.
    pub async fn append(&self, connection: &mut PgConnection, messages: &[Message]) -> Result<(), Error> {
        self.insert(connection, messages).await.map_err(|failure| self.error(failure, "enqueue"))
    }

    async fn insert(&self, connection: &mut PgConnection, messages: &[Message]) -> Result<(), Failure> {
        for message in messages {
            Limits::default().check(message).map_err(|invalid| Failure::Refused(invalid.into()))?;
            let absent = [
                ("an ordering key", message.key().is_some()),
                ("a time of delivery", message.deliver_at().is_some()),
            ];
            if let Some((what, _)) = absent.into_iter().find(|(_, is_there)| *is_there) {
                return Err(Failure::Refused(
                    Error::new(ErrorKind::Rejected, "enqueue")
                        .describe(format!(
                            "the message {} has {what}, for which Spakky's table has no column",
                            message.id()
                        ))
                        .not_applied(),
                ));
            }
        }
        for message in messages {
            let mut headers: BTreeMap<&str, &str> =
                message.headers().iter().map(|(name, value)| (&**name, &**value)).collect();
            if let Some(content_type) = message.content_type() {
                headers.insert("content-type", content_type);
            }
            // A map of strings is always JSON.
            let headers = serde_json::to_string(&headers).unwrap_or_default();
            sqlx::query(concat!(
                "INSERT INTO spakky_event_outbox (id, event_name, payload, headers, created_at, retry_count) ",
                "VALUES ($1, $2, $3, $4::json, ", at!(5), ", 0) ON CONFLICT DO NOTHING"
            ))
            .bind(*message.id().as_uuid())
            .bind(&**message.topic())
            .bind(&message.payload()[..])
            .bind(headers)
            .bind(message.created_at().as_micros())
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
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

/// The id in the first column. `uuid_send` answers 16 bytes always.
fn id_of(row: &PgRow) -> Result<Uuid, sqlx::Error> {
    Ok(Uuid::from_slice(row.try_get(0)?).unwrap_or_default())
}

fn answer(now: Timestamp, token: Token, held: &Held, rows: &[PgRow]) -> Result<Claimed, sqlx::Error> {
    let mut found: BTreeMap<Uuid, &PgRow> = BTreeMap::new();
    for row in rows {
        found.insert(id_of(row)?, row);
    }
    let entries = held.ids.iter().filter_map(|id| found.get(id)).map(|row| entry(row));
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    let len = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let run = Run { token, claimed_at: held.since, lease_until: held.lease_until, start: 0, len };
    Ok(Claimed { runs: vec![run], entries, now, ..Claimed::default() })
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let attempts = row.try_get::<i32, _>(5)?;
    Ok(Entry { content: content(row)?, attempts: u32::try_from(attempts).unwrap_or(0), strikes: 0 })
}

fn content(row: &PgRow) -> Result<Content, sqlx::Error> {
    let id = MessageId::from(id_of(row)?);
    let payload = bytes::Bytes::from(row.try_get::<Option<Vec<u8>>, _>(2)?.unwrap_or_default());
    let topic: Option<String> = row.try_get(1)?;
    let headers: Option<String> = row.try_get(3)?;
    let created_at: Option<i64> = row.try_get(4)?;
    let build = || -> Result<Message, String> {
        let mut headers: BTreeMap<String, String> = match headers.as_deref() {
            None | Some("null") => BTreeMap::new(),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| format!("`headers` is no JSON object of strings: {error}"))?,
        };
        let content_type = headers.remove("content-type");
        let mut message = Message::given(
            id,
            Timestamp::from_micros(created_at.unwrap_or_default()),
            topic.unwrap_or_default(),
        )
        .limits(Limits::highest())
        .headers(headers.into_iter().collect::<Headers>());
        if let Some(content_type) = content_type {
            message = message.content_type(content_type);
        }
        message.payload(payload.clone()).map_err(|invalid| invalid.to_string())
    };
    Ok(match build() {
        Ok(message) => Content::Message(message),
        Err(reason) => {
            Content::Undecodable(Undecodable { id: Some(id), bytes: payload, reason: reason.into() })
        }
    })
}

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
        self.try_claim(&claim).await.map_err(|failure| self.error(failure, "claim"))
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let mut answers = Vec::with_capacity(tokens.len());
        for token in tokens {
            answers
                .push(self.try_renew(*token, lease).await.map_err(|failure| self.error(failure, "renew"))?);
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
            answers.push(
                self.try_settle(token, settlement).await.map_err(|failure| self.error(failure, "settle"))?,
            );
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

impl Enqueue<Transaction<'_, Postgres>> for SpakkyStorage {
    async fn enqueue(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        messages: &[Message],
    ) -> Result<(), Error> {
        self.append(transaction, messages).await
    }
}

impl EnqueueAlone for SpakkyStorage {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let stored = async {
                let mut transaction = self.0.pool.begin_with(Postgres::BEGIN).await?;
                self.insert(&mut transaction, messages).await?;
                transaction.commit().await.map_err(Failure::Commit)
            };
            stored.await.map_err(|failure| self.error(failure, "enqueue"))
        })
    }
}

impl fmt::Debug for SpakkyStorage {
    /// Shows the place, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SpakkyStorage").field("place", &self.0.place).finish_non_exhaustive()
    }
}
