//! What differs between the databases: types of the client, and words of SQL. Everything else is one algorithm.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use crate::SqlConfig;
use crate::layout::Tables;
use pillarbox_core::{BoxFuture, Error, Hints, Message};
use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database};

/// A value that a statement is given.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An array of whole numbers, where [`Dialect::HAS_ARRAYS`].
    Ints(Vec<i64>),
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Argument {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&[u8]> for Argument {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

/// What connects to a database.
pub type Options<D> = <<D as Database>::Connection as Connection>::Options;

/// Several statements as one text, whose effect alone matters.
type Done<'c> = BoxFuture<'c, Result<(), sqlx::Error>>;

/// A database that can hold an outbox. Implemented for the databases of the enabled features, and by nobody else.
///
/// An implementation detail that shows in signatures: use [`SqlStorage`](crate::SqlStorage) by the names for each database.
#[doc(hidden)]
pub trait Dialect: Database {
    /// What people call it.
    const PRODUCT: &'static str;
    /// The schemes of its URLs.
    const SCHEMES: &'static [&'static str];
    /// Whether arguments are numbered, `$1`, instead of `?`.
    const NUMBERED: bool;
    /// Begins a transaction in which each statement sees what others have committed before it.
    const BEGIN: &'static str;
    /// Begins a transaction that only reads, where that spares waiting for the only writer.
    const BEGIN_READ: Option<&'static str>;
    /// The database's own time in microseconds since 1970.
    const NOW: &'static str;
    /// What tells the server from one that takes its place; needed with [`WRITERS`](Self::WRITERS) only.
    const SERVER: &'static str = "0";
    /// Before what begins the transaction of a claim: lets its commit be answered before it is on the disk, see
    /// [`COMMIT_LEASES`](Self::COMMIT_LEASES). What it changes is put back by [`CLAIM_END`](Self::CLAIM_END).
    const BEFORE_CLAIM: &'static str = "";
    /// Behind what begins the transaction of a claim: keeps a second claim of one nonce, a number in place of the `@`, waiting until the
    /// first has ended.
    const CLAIM_BEGIN: &'static str = "";
    /// Ends a `SELECT` that locks its rows, and leaves out those that others hold.
    const SKIP_LOCKED: &'static str;
    /// Ends a `SELECT` that locks its rows.
    const FOR_UPDATE: &'static str;
    /// What is read beside new messages, for [`marks`](crate::marks): whether some key is held, and where the row lies, as bytes, by which
    /// it is found sooner than by any index for as long as nobody moves it.
    const BESIDE_NEW: &'static str = "";
    /// An argument that is an id's bytes.
    const ID_ARGUMENT: &'static str;
    /// Stores a setting unless it is there: two arguments.
    const KEEP_SETTING: &'static str;
    /// Stands behind a table of which rows are chosen by their places: a plan that reads the whole table would wait for every row that
    /// somebody else has locked, such as those that a producer has not committed.
    const BY_PLACE: &'static str = "";
    /// A list of places, for its `@`, as a table `p` to which the other one is joined by its primary key: where even that leaves the plan a
    /// choice, for statements that wait for rows which they only pass.
    const LIST: Option<&'static str> = None;
    /// Whether a query that locks rows locks no more than its `LIMIT`, also where it sorts.
    const LOCKS_BY_LIMIT: bool = true;
    /// Whether a part of a query, its `WITH`, may lock rows.
    const LOCKS_IN_PARTS: bool = true;
    /// Commits a claim that has changed leases only. It need not be on the disk when it is answered: a crash that undoes it leaves what an
    /// expired lease leaves, except that the fence may be given out once more, and a token's nonce tells the two apart. A settlement is on
    /// the disk, with every claim before it.
    const COMMIT_LEASES: &'static str = "COMMIT";
    /// Puts back, after the transaction of a claim or of anything else, what a claim had set for its connection.
    const CLAIM_END: &'static str = "";
    /// How many lanes a claim locks at a time.
    const LANES_AT_ONCE: usize;
    /// A query for the names of the transactions that write to the table of messages, where what was deleted is in the way of later
    /// claims: see [`marks`](crate::marks).
    const WRITERS: Option<&'static str> = None;
    /// A query for the highest place in the order that was given out, or nothing if this user may not know; needed with [`WRITERS`](Self::WRITERS) only.
    const GIVEN_OUT: &'static str = "";
    /// Whether it can keep published messages in partitions: see [`partitions`](crate::partitions).
    const HAS_PARTITIONS: bool = false;
    /// Whether a list of places can be one argument, an array.
    const HAS_ARRAYS: bool = false;
    /// Whether a statement that will not come again is sent as text, its arguments in it.
    const IS_INLINED: bool = false;
    /// The steps that make the schema, oldest first.
    const MIGRATIONS: &'static [&'static str];
    /// Answers 1 if the table of settings is there.
    const HAS_SETTINGS: &'static str;
    /// Keeps other migrations of this outbox waiting, and answers 1; nothing where the transaction does.
    const MIGRATION_LOCK: Option<&'static str>;
    /// Whether a whole migration is one transaction.
    const TRANSACTIONAL_MIGRATIONS: bool;
    /// The options in URLs that the client knows. The client itself passes over unknown ones.
    const CLIENT_OPTIONS: &'static [&'static str];
    /// Whether [`hints`](Self::hints) gives some.
    const HAS_HINTS: bool;
    /// What the largest enqueued list may weigh in one statement.
    const STATEMENT_BYTES: usize;

    /// Reads the URL without our options.
    fn options(url: &str) -> Result<Options<Self>, sqlx::Error>;
    /// Host, port and database; never a credential.
    fn place(options: &Options<Self>) -> String;
    /// Refuses what cannot hold an outbox, and sets what it needs.
    fn prepare(options: Options<Self>) -> Result<Options<Self>, Error>;
    /// The options with which connections are opened.
    fn connecting(config: &SqlConfig<Self>) -> Options<Self> {
        config.options.clone()
    }
    /// The options with which the schema is made.
    fn creating(config: &SqlConfig<Self>) -> Options<Self> {
        config.options.clone()
    }
    /// A pool whose connections are set up.
    fn pool(options: PoolOptions<Self>, config: &SqlConfig<Self>) -> PoolOptions<Self>;
    /// [`BEGIN`](Self::BEGIN), and that the database ends the transaction when its client is not heard of any more: until then it keeps its
    /// locks, and no other claim gets the lanes.
    fn begin(_: &SqlConfig<Self>) -> String {
        Self::BEGIN.to_owned()
    }
    /// The condition that a message `m` waits in a lane, so that its order by lane and place is that of the index for both, and never
    /// that of the primary key, in which a claim would walk over the messages of all other lanes.
    fn in_line(lane: &str) -> String {
        format!("m.line = {lane}")
    }
    /// Says what is unsafe about the server.
    fn check<'c>(connection: &'c mut Self::Connection, place: &'c str) -> BoxFuture<'c, Result<(), Error>>;
    /// Runs a statement; answers how many rows it changed. One that will not come again is not worth preparing.
    fn execute<'c>(
        connection: &'c mut Self::Connection,
        sql: String,
        arguments: Vec<Argument>,
        comes_again: bool,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>>;
    /// Runs a query.
    fn query<'c>(
        connection: &'c mut Self::Connection,
        sql: String,
        arguments: Vec<Argument>,
        comes_again: bool,
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, sqlx::Error>>;
    /// Runs several statements.
    fn script(connection: &mut Self::Connection, sql: String) -> Done<'_>;
    /// A number, or nothing.
    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;
    /// Text, or nothing.
    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error>;
    /// Bytes, or nothing.
    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;
    /// Adds messages, in their order; with a hint if that is configured. The list is not empty.
    fn insert<'c>(
        connection: &'c mut Self::Connection,
        tables: &'c Tables,
        messages: &'c [Message],
        config: &'c SqlConfig<Self>,
    ) -> Done<'c>;
    /// Hints that something was committed.
    fn hints(config: &SqlConfig<Self>) -> Box<dyn Hints>;
    /// A code of the database's own that says more than its SQLSTATE.
    fn number(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u16>;
}

/// A statement with its arguments in the text: numbers as they are, all else in hexadecimal, so that nothing needs escaping.
fn inlined(sql: &str, arguments: &[Argument]) -> String {
    use std::fmt::Write as _;
    let mut arguments = arguments.iter();
    let mut text = String::with_capacity(sql.len() + 64);
    for (number, part) in sql.split('?').enumerate() {
        if let Some(argument) = (number > 0).then(|| arguments.next()).flatten() {
            // Writing to a `String` cannot fail.
            let _ = match argument {
                Argument::Int(value) => write!(text, "{value}"),
                Argument::Text(value) => write!(text, "_utf8mb4 x'{}'", hexadecimal(value.as_bytes())),
                Argument::Bytes(value) => write!(text, "x'{}'", hexadecimal(value)),
                // Only databases without arrays are given their arguments in the text.
                Argument::Ints(_) => Ok(()),
            };
        }
        text.push_str(part);
    }
    text
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The methods that are the same text for each client, with how it binds an array.
macro_rules! client {
    ($query:ident, $array:pat => $bound:expr) => {
        fn execute<'c>(
            connection: &'c mut Self::Connection,
            sql: String,
            arguments: Vec<Argument>,
            comes_again: bool,
        ) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
            Box::pin(async move {
                if Self::IS_INLINED && !comes_again {
                    let sql = crate::dialect::inlined(&sql, &arguments);
                    return Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?.rows_affected());
                }
                let mut $query = sqlx::query::<Self>(AssertSqlSafe(sql)).persistent(comes_again);
                for argument in arguments {
                    $query = match argument {
                        Argument::Int(value) => $query.bind(value),
                        Argument::Text(value) => $query.bind(value),
                        Argument::Bytes(value) => $query.bind(value),
                        $array => $bound,
                    };
                }
                Ok($query.execute(connection).await?.rows_affected())
            })
        }

        fn query<'c>(
            connection: &'c mut Self::Connection,
            sql: String,
            arguments: Vec<Argument>,
            comes_again: bool,
        ) -> BoxFuture<'c, Result<Vec<Self::Row>, sqlx::Error>> {
            Box::pin(async move {
                if Self::IS_INLINED && !comes_again {
                    let sql = crate::dialect::inlined(&sql, &arguments);
                    return sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
                }
                let mut $query = sqlx::query::<Self>(AssertSqlSafe(sql)).persistent(comes_again);
                for argument in arguments {
                    $query = match argument {
                        Argument::Int(value) => $query.bind(value),
                        Argument::Text(value) => $query.bind(value),
                        Argument::Bytes(value) => $query.bind(value),
                        $array => $bound,
                    };
                }
                $query.fetch_all(connection).await
            })
        }

        fn script(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), sqlx::Error>> {
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
                Ok(())
            })
        }
    };
}
use client;

/// What a database without arrays says of one.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
fn no_arrays() -> sqlx::Error {
    sqlx::Error::InvalidArgument("this database has no arrays".to_owned())
}

/// The methods that read a row, where the client tells the types.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! typed_rows {
    () => {
        fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error> {
            row.try_get(column)
        }

        fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error> {
            row.try_get(column)
        }

        fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
            row.try_get(column)
        }
    };
}
#[cfg(any(feature = "sqlite", feature = "mysql"))]
use typed_rows;

/// Adds messages as rows of values, as many in one statement as `most` says.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! insert_rows {
    ($connection:ident, $tables:ident, $messages:ident, $most:expr) => {{
        let mut rest = $messages;
        while !rest.is_empty() {
            let count = crate::layout::fitting(rest, $most, Self::STATEMENT_BYTES);
            let (now, later) = rest.split_at(count);
            let mut builder = sqlx::QueryBuilder::<Self>::new($tables.fill(crate::layout::INSERT));
            builder.push_values(now, |mut row, message| {
                row.push_bind(message.id().to_bytes().to_vec())
                    .push_bind(message.topic().to_string())
                    .push_bind(message.key().map(ToString::to_string))
                    .push_bind(crate::record::headers_as_json(message))
                    .push_bind(message.payload().to_vec())
                    .push_bind(message.content_type().map(ToString::to_string))
                    .push_bind(message.created_at().as_micros())
                    .push_bind(message.deliver_at().map(pillarbox_core::Timestamp::as_micros));
            });
            builder.build().execute(&mut *$connection).await?;
            rest = later;
        }
        Ok(())
    }};
}
#[cfg(any(feature = "sqlite", feature = "mysql"))]
use insert_rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_in_the_text() {
        let arguments =
            [Argument::Int(-3), Argument::Text("it's ?".to_owned()), Argument::Bytes(vec![0, 255])];
        assert_eq!(
            inlined("UPDATE t SET a = ?, b = ? WHERE c = ? AND d IN (1,2)", &arguments),
            "UPDATE t SET a = -3, b = _utf8mb4 x'69742773203f' WHERE c = x'00ff' AND d IN (1,2)"
        );
        assert_eq!(inlined("SELECT 1", &[]), "SELECT 1");
    }
}
