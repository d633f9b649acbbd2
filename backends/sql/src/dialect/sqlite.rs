//! SQLite: one writer at a time, so that a claim is atomic by its transaction alone.

use super::{Argument, Dialect, Options, client, insert_rows, no_arrays, typed_rows};
use crate::config::misconfigured;
use crate::layout::Tables;
use crate::listener::polled;
use crate::{SqlConfig, error};
use pillarbox_core::{BoxFuture, Error, Hints, Message};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row as _, Sqlite};
use std::str::FromStr as _;
use std::time::Duration;

/// A claim and its settlement touch the same pages, a thousand and more with many keys: 8 MiB of them stay in memory.
const CACHE: &str = "-8192";
/// How long a writer waits for another at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a waiting relay looks whether something was committed. Reading a counter in shared memory costs microseconds.
const LOOK: Duration = Duration::from_millis(20);

impl Dialect for Sqlite {
    const PRODUCT: &'static str = "SQLite";
    const SCHEMES: &'static [&'static str] = &["sqlite"];
    const NUMBERED: bool = false;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_READ: Option<&'static str> = Some("BEGIN DEFERRED");
    // Whoever loses the power loses all relays of the file with it. A settlement syncs the whole log, and so the claims before it.
    const BEFORE_CLAIM: &'static str = "PRAGMA synchronous = NORMAL; ";
    const CLAIM_END: &'static str = "PRAGMA synchronous = FULL";
    const NOW: &'static str = "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)";
    const SKIP_LOCKED: &'static str = "";
    const FOR_UPDATE: &'static str = "";
    const ID_ARGUMENT: &'static str = "?";
    const KEEP_SETTING: &'static str =
        "INSERT INTO {setting} (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
    const LANES_AT_ONCE: usize = 16;
    const MIGRATIONS: &'static [&'static str] = &[include_str!("../../migrations/sqlite/0001_outbox.sql")];
    const HAS_SETTINGS: &'static str = "SELECT count(*) FROM sqlite_master WHERE name = '{setting}'";
    const MIGRATION_LOCK: Option<&'static str> = None;
    const TRANSACTIONAL_MIGRATIONS: bool = true;
    const CLIENT_OPTIONS: &'static [&'static str] = &["mode", "cache", "immutable", "vfs"];
    const HAS_HINTS: bool = true;
    const STATEMENT_BYTES: usize = 64 * 1024 * 1024;

    fn options(url: &str) -> Result<Options<Self>, sqlx::Error> {
        SqliteConnectOptions::from_str(url)
    }

    fn place(options: &Options<Self>) -> String {
        options.get_filename().display().to_string()
    }

    fn prepare(options: Options<Self>) -> Result<Options<Self>, Error> {
        let name = options.get_filename().to_string_lossy().into_owned();
        if name.contains(":memory:") || name.contains("mode=memory") || name.is_empty() {
            return Err(misconfigured(
                "a database in memory is lost with its connection; name a file, or use the memory storage"
                    .to_owned(),
            ));
        }
        Ok(options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", CACHE)
            .row_buffer_size(1_024))
    }

    fn connecting(config: &SqlConfig<Self>) -> Options<Self> {
        // Below the time that a call may take, so that it can say why it took it.
        config.options.clone().busy_timeout(BUSY_TIMEOUT.min(config.response_timeout / 4))
    }

    fn creating(config: &SqlConfig<Self>) -> Options<Self> {
        Self::connecting(config).create_if_missing(true)
    }

    fn pool(options: PoolOptions<Self>, _: &SqlConfig<Self>) -> PoolOptions<Self> {
        options
    }

    fn check<'c>(connection: &'c mut Self::Connection, place: &'c str) -> BoxFuture<'c, Result<(), Error>> {
        Box::pin(async move {
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
                .fetch_one(connection)
                .await
                .map_err(|failure| error::map::<Self>(failure, "open", place))?;
            if !mode.eq_ignore_ascii_case("wal") {
                return Err(misconfigured(format!(
                    "SQLite at {place} has the journal mode {mode:?}, and needs `wal`; a network file system cannot hold it"
                )));
            }
            Ok(())
        })
    }

    client!(query, Argument::Ints(_) => return Err(no_arrays()));

    typed_rows!();

    fn insert<'c>(
        connection: &'c mut Self::Connection,
        tables: &'c Tables,
        messages: &'c [Message],
        _: &'c SqlConfig<Self>,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        // A statement has at most 32,766 arguments; more rows than these gain nothing.
        Box::pin(async move { insert_rows!(connection, tables, messages, 500) })
    }

    fn hints(config: &SqlConfig<Self>) -> Box<dyn Hints> {
        polled(config, "PRAGMA data_version", LOOK)
    }

    fn number(_: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u16> {
        None
    }
}
