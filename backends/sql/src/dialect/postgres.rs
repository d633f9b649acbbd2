//! PostgreSQL.

use super::{Argument, Dialect, Options, client};
use crate::config::misconfigured;
use crate::layout::{INSERT, Tables, fitting};
use crate::listener::Listener;
use crate::record::headers_as_json;
use crate::session::words;
use crate::{SqlConfig, error};
use pillarbox_core::{BoxFuture, Error, Hints, Message, Timestamp};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _, ValueRef as _};
use std::str::FromStr as _;
use std::sync::Arc;
use tokio::sync::Notify;

/// A value as it came, in the binary format: its type is known from the statement, and what is read as bytes may be a UUID too.
fn raw<T>(
    row: &PgRow,
    column: usize,
    read: impl FnOnce(&[u8]) -> Result<T, BoxDynError>,
) -> Result<Option<T>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    let unreadable = |source| sqlx::Error::ColumnDecode { index: column.to_string(), source };
    value.as_bytes().and_then(read).map(Some).map_err(unreadable)
}

impl Dialect for Postgres {
    const PRODUCT: &'static str = "PostgreSQL";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const NUMBERED: bool = true;
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const BEGIN_READ: Option<&'static str> = None;
    const NOW: &'static str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    const CLAIM_BEGIN: &'static str = "; SELECT pg_advisory_xact_lock(@)";
    const COMMIT_LEASES: &'static str = "SET LOCAL synchronous_commit = off; COMMIT";
    const SERVER: &'static str = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const BESIDE_NEW: &'static str =
        ", (SELECT 1 FROM {message} h WHERE h.held_key IS NOT NULL LIMIT 1), tidsend(ctid)";
    const ID_ARGUMENT: &'static str = "encode(?, 'hex')::uuid";
    const KEEP_SETTING: &'static str =
        "INSERT INTO {setting} (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
    const LANES_AT_ONCE: usize = 4;
    const WRITERS: Option<&'static str> = Some(
        "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = '{message}'::regclass AND mode = 'RowExclusiveLock' AND granted",
    );
    const GIVEN_OUT: &'static str = "SELECT CASE WHEN has_sequence_privilege(s.name, 'SELECT') OR has_sequence_privilege(s.name, 'USAGE') \
        THEN pg_sequence_last_value(s.name::regclass) END FROM (SELECT pg_get_serial_sequence('{message}', 'seq') AS name) s";
    const HAS_PARTITIONS: bool = true;
    const HAS_ARRAYS: bool = true;
    const MIGRATIONS: &'static [&'static str] = &[include_str!("../../migrations/postgres/0001_outbox.sql")];
    const HAS_SETTINGS: &'static str = "SELECT CASE WHEN to_regclass('{setting}') IS NULL THEN 0 ELSE 1 END";
    const MIGRATION_LOCK: Option<&'static str> = Some(
        "SELECT 1 FROM (SELECT pg_advisory_xact_lock(hashtextextended('pillarbox {setting}', 0))) AS locked",
    );
    const TRANSACTIONAL_MIGRATIONS: bool = true;
    const CLIENT_OPTIONS: &'static [&'static str] = &[
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    const HAS_HINTS: bool = true;
    const STATEMENT_BYTES: usize = 64 * 1024 * 1024;

    fn options(url: &str) -> Result<Options<Self>, sqlx::Error> {
        PgConnectOptions::from_str(url)
    }

    fn place(options: &Options<Self>) -> String {
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        format!("{host}:{}/{database}", options.get_port())
    }

    fn prepare(options: Options<Self>) -> Result<Options<Self>, Error> {
        Ok(options)
    }

    fn in_line(lane: &str) -> String {
        // Of an array the planner does not know that it has one element, and so that the order by places alone is the same.
        format!("m.line = ANY(ARRAY[{lane}])")
    }

    fn pool(options: PoolOptions<Self>, _: &SqlConfig<Self>) -> PoolOptions<Self> {
        options
    }

    fn begin(config: &SqlConfig<Self>) -> String {
        // For this transaction alone, since those of the application are none of our business. Plans are made while tables are small, and
        // kept: a whole table, or all of a lane, is never what these statements should read, whatever the planner takes it for. What they
        // read is in the order of its index.
        let settings: Vec<String> = ["seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"]
            .iter()
            .map(|node| format!("set_config('enable_{node}', 'off', true)"))
            .collect();
        format!(
            "{}; SELECT set_config('idle_in_transaction_session_timeout', '{}', true), \
             set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true), {}",
            Self::BEGIN,
            config.response_timeout.as_millis(),
            settings.join(", ")
        )
    }

    fn check<'c>(connection: &'c mut Self::Connection, place: &'c str) -> BoxFuture<'c, Result<(), Error>> {
        Box::pin(async move {
            let map = |failure| error::map::<Self>(failure, "open", place);
            let row = sqlx::query(
                "SELECT current_setting('server_version_num')::bigint, current_setting('synchronous_commit'), \
                 current_setting('fsync'), pg_is_in_recovery()",
            )
            .persistent(false)
            .fetch_one(connection)
            .await
            .map_err(map)?;
            let version: i64 = row.try_get(0).map_err(map)?;
            let (commit, fsync): (String, String) =
                (row.try_get(1).map_err(map)?, row.try_get(2).map_err(map)?);
            let is_replica: bool = row.try_get(3).map_err(map)?;
            if version < 120_000 {
                return Err(misconfigured(format!(
                    "PostgreSQL at {place} is version {}; 12 or later is needed",
                    version / 10_000
                )));
            }
            if is_replica {
                return Err(misconfigured(format!(
                    "PostgreSQL at {place} is a replica, which takes no writes; name the primary"
                )));
            }
            if commit == "off" || fsync == "off" {
                tracing::warn!(
                    place,
                    "PostgreSQL has `fsync` or `synchronous_commit` off: a crash of the server loses what it has acknowledged"
                );
            }
            Ok(())
        })
    }

    client!(query, Argument::Ints(values) => query.bind(values));

    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error> {
        // Literals and `CASE` are of the smaller type.
        raw(row, column, |bytes| match bytes.len() {
            4 => Ok(i64::from(i32::from_be_bytes(bytes.try_into()?))),
            _ => Ok(i64::from_be_bytes(bytes.try_into()?)),
        })
    }

    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error> {
        raw(row, column, |bytes| Ok(std::str::from_utf8(bytes)?.to_owned()))
    }

    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
        raw(row, column, |bytes| Ok(bytes.to_vec()))
    }

    fn insert<'c>(
        connection: &'c mut Self::Connection,
        tables: &'c Tables,
        messages: &'c [Message],
        config: &'c SqlConfig<Self>,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let rows = "SELECT * FROM unnest(?::uuid[], ?::text[], ?::text[], ?::text[]::json[], ?::bytea[], ?::text[], ?::bigint[], ?::bigint[])";
            let hint = match config.notify {
                true => "SELECT pg_notify(?, '')",
                false => "SELECT ?::text",
            };
            let sql = words::<Self>(tables, &format!("WITH added AS ({INSERT}{rows}) {hint}"));
            let channel = tables.channel();
            let mut rest = messages;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(fitting(rest, 1_000, Self::STATEMENT_BYTES));
                sqlx::query(AssertSqlSafe(sql.clone()))
                    .persistent(!config.transaction_pooler)
                    .bind(now.iter().map(|message| *message.id().as_uuid()).collect::<Vec<_>>())
                    .bind(now.iter().map(|message| message.topic().to_string()).collect::<Vec<_>>())
                    .bind(
                        now.iter().map(|message| message.key().map(ToString::to_string)).collect::<Vec<_>>(),
                    )
                    .bind(now.iter().map(headers_as_json).collect::<Vec<_>>())
                    .bind(now.iter().map(|message| message.payload().to_vec()).collect::<Vec<_>>())
                    .bind(
                        now.iter()
                            .map(|message| message.content_type().map(ToString::to_string))
                            .collect::<Vec<_>>(),
                    )
                    .bind(now.iter().map(|message| message.created_at().as_micros()).collect::<Vec<_>>())
                    .bind(
                        now.iter()
                            .map(|message| message.deliver_at().map(Timestamp::as_micros))
                            .collect::<Vec<_>>(),
                    )
                    .bind(&channel)
                    .execute(&mut *connection)
                    .await?;
                rest = later;
            }
            Ok(())
        })
    }

    fn hints(config: &SqlConfig<Self>) -> Box<dyn Hints> {
        let config = config.clone();
        Box::new(Listener::new(move |hint: Arc<Notify>| {
            let config = config.clone();
            async move {
                // A connection of its own: one that waits for notifications is lost to everything else.
                let pool = PgPoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(config.connect_timeout)
                    .connect_lazy_with(config.options.clone());
                let mut listener = PgListener::connect_with(&pool).await?;
                listener.eager_reconnect(false);
                listener.listen(&config.name).await?;
                // What was committed until now was not heard of.
                hint.notify_one();
                while listener.try_recv().await?.is_some() {
                    hint.notify_one();
                }
                Ok(())
            }
        }))
    }

    fn number(_: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u16> {
        None
    }
}
