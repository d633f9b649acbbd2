//! MySQL and MariaDB.

use super::{Argument, Dialect, Options, client, insert_rows, no_arrays, typed_rows};
use crate::config::misconfigured;
use crate::layout::Tables;
use crate::{SqlConfig, error};
use pillarbox_core::{BoxFuture, Error, Hints, Message};
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::pool::PoolOptions;
use sqlx::{AssertSqlSafe, MySql, Row as _};
use std::str::FromStr as _;
use std::time::Duration;

/// After so many seconds the server ends a session that is idle.
const IDLE_SECONDS: u64 = 120;

impl Dialect for MySql {
    const PRODUCT: &'static str = "MySQL";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const NUMBERED: bool = false;
    const BEGIN: &'static str = "START TRANSACTION";
    const BEGIN_READ: Option<&'static str> = None;
    // No time zone has a part in it, least of all one that sets its clocks back.
    const NOW: &'static str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
    // The lock belongs to the connection, which ends with a transaction that was dropped.
    const CLAIM_BEGIN: &'static str = "; DO GET_LOCK('pillarbox @', 5)";
    const CLAIM_END: &'static str = "DO RELEASE_ALL_LOCKS()";
    const BY_PLACE: &'static str = " FORCE INDEX (PRIMARY)";
    const LIST: Option<&'static str> =
        Some("JSON_TABLE('[@]', '$[*]' COLUMNS (place BIGINT PATH '$')) p STRAIGHT_JOIN");
    const LOCKS_BY_LIMIT: bool = false;
    const LOCKS_IN_PARTS: bool = false;
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const ID_ARGUMENT: &'static str = "?";
    const KEEP_SETTING: &'static str = "INSERT IGNORE INTO {setting} (name, value) VALUES (?, ?)";
    const LANES_AT_ONCE: usize = 4;
    // The client closes a statement that was prepared for once with a packet that nobody answers, and does not set `TCP_NODELAY`: the
    // next command would wait for the delayed acknowledgement, 40 ms each time.
    const IS_INLINED: bool = true;
    const MIGRATIONS: &'static [&'static str] = &[include_str!("../../migrations/mysql/0001_outbox.sql")];
    const HAS_SETTINGS: &'static str = "SELECT CAST(count(*) AS SIGNED) FROM information_schema.tables WHERE table_schema = database() AND table_name = '{setting}'";
    const MIGRATION_LOCK: Option<&'static str> =
        Some("SELECT CAST(GET_LOCK('pillarbox {setting}', 60) AS SIGNED)");
    const TRANSACTIONAL_MIGRATIONS: bool = false;
    const CLIENT_OPTIONS: &'static [&'static str] = &[
        "sslmode",
        "ssl-mode",
        "sslca",
        "ssl-ca",
        "charset",
        "collation",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "socket",
        "timezone",
        "time-zone",
    ];
    const HAS_HINTS: bool = false;
    // Below the default of `max_allowed_packet`, 16 MiB in MariaDB, except for a message that is larger by itself.
    const STATEMENT_BYTES: usize = 4 * 1024 * 1024;

    fn options(url: &str) -> Result<Options<Self>, sqlx::Error> {
        MySqlConnectOptions::from_str(url)
    }

    fn place(options: &Options<Self>) -> String {
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        format!("{host}:{}/{}", options.get_port(), options.get_database().unwrap_or_default())
    }

    fn prepare(options: Options<Self>) -> Result<Options<Self>, Error> {
        if options.get_database().is_none() {
            return Err(misconfigured(
                "the URL names no database; write `mysql://user:password@host:port/database`".to_owned(),
            ));
        }
        Ok(options)
    }

    fn pool(options: PoolOptions<Self>, config: &SqlConfig<Self>) -> PoolOptions<Self> {
        // By default a transaction would not see what others commit after its first read. And a server waits eight hours for a client
        // that is gone without a word, with the locks of its transaction; MariaDB tells such a session from one that is idle only.
        // Transactions of the application may be idle for a while, too.
        let limit = (3 * config.response_timeout).as_secs().max(1);
        let idle = limit.max(IDLE_SECONDS);
        let setup = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION wait_timeout = {idle} /*M! , SESSION idle_transaction_timeout = {limit} */"
        );
        options.idle_timeout(Duration::from_secs(idle / 2)).after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(setup)).execute(connection).await?;
                Ok(())
            })
        })
    }

    fn check<'c>(connection: &'c mut Self::Connection, place: &'c str) -> BoxFuture<'c, Result<(), Error>> {
        Box::pin(async move {
            let map = |failure| error::map::<Self>(failure, "open", place);
            let row = sqlx::query(
                "SELECT VERSION(), CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@read_only AS SIGNED), @@binlog_format",
            )
            .fetch_one(connection)
            .await
            .map_err(map)?;
            let version: String = row.try_get(0).map_err(map)?;
            let (flush, read_only): (i64, i64) = (row.try_get(1).map_err(map)?, row.try_get(2).map_err(map)?);
            let format: String = row.try_get(3).map_err(map)?;
            if !is_new_enough(&version) {
                return Err(misconfigured(format!(
                    "the server at {place} is version {version:?}; MySQL 8.0 or MariaDB 10.6 and later are needed"
                )));
            }
            if read_only != 0 {
                return Err(misconfigured(format!("the server at {place} is read-only; name the primary")));
            }
            if format == "STATEMENT" {
                return Err(misconfigured(format!(
                    "the server at {place} has `binlog_format` STATEMENT, with which READ COMMITTED cannot write; set it to ROW or MIXED"
                )));
            }
            if flush != 1 {
                tracing::warn!(
                    place,
                    "`innodb_flush_log_at_trx_commit` is not 1: a crash of the server loses what it has acknowledged"
                );
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
        Box::pin(async move { insert_rows!(connection, tables, messages, 500) })
    }

    fn hints(_: &SqlConfig<Self>) -> Box<dyn Hints> {
        Box::new(Silence)
    }

    fn number(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u16> {
        error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
    }
}

/// MySQL cannot tell of a commit; relays poll.
struct Silence;

impl Hints for Silence {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers =
        version.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version_number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version.contains("MariaDB") {
        true => version_number >= (10, 6),
        false => version_number >= (8, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (version, is_enough) in [
            ("10.11.6-MariaDB-0+deb12u1", true),
            ("10.6.0-MariaDB", true),
            ("11.4.2-MariaDB-log", true),
            ("10.5.9-MariaDB", false),
            ("8.0.36", true),
            ("9.1.0", true),
            ("5.7.44-log", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), is_enough, "{version}");
        }
    }
}
