//! The SQL storages of the Pillarbox outbox: SQLite, PostgreSQL, and MySQL or MariaDB, on `sqlx`.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pillarbox_core::{Enqueue as _, Message, MessageId, Timestamp};
//! use pillarbox_sql::{SqlConfig, SqliteStorage};
//!
//! let config = SqlConfig::from_url("sqlite://orders.db?mode=rwc")?;
//! // The schema is made when somebody asks for it, never by itself; `pillarbox migrate` does the same.
//! SqliteStorage::migrate(&config).await?;
//! let outbox = SqliteStorage::connect(config).await?;
//!
//! # let message = Message::given(MessageId::from_bytes([7; 16]), Timestamp::EPOCH, "orders.created").payload("{}")?;
//! // The application's own transaction: business data and messages, both or neither.
//! let mut transaction = outbox.pool().begin().await?;
//! sqlx::query("INSERT INTO orders (id) VALUES ('order-1')").execute(&mut *transaction).await?;
//! outbox.enqueue(&mut transaction, &[message]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A message is one row, in one of sixteen lanes that the database computes from its ordering key. Enqueueing is a plain `INSERT`, so any
//! program that can write SQL can enqueue: [`layout`] is the contract. Relays lease lanes, not messages: a claim locks lanes that are
//! free (`FOR UPDATE SKIP LOCKED`; SQLite has one writer), then, in a second statement that sees everything that earlier holders have
//! committed, reads the head of each, and notes fence, lease and run in the lane's row. So claiming writes no message, and a
//! settlement deletes the run by its primary key. Only what goes wrong costs more: a message that comes back leaves its line, and
//! while it waits the later ones of its key wait behind it, and the other keys of its lane go on.
//!
//! No transaction and no connection is held while a relay publishes.
//!
//! # What it promises
//!
//! [`Order::InsertOrdered`](pillarbox_core::Order): the order of one key is the order in which the inserts ran, which is the order of the
//! column `seq`. Of two concurrent transactions on one key the one that inserted first may commit last; its message is then delivered
//! after the other's if a relay came between, and is never lost or passed over: a claim asks for the lowest `seq` that is there, not for
//! those above a mark. Where that order matters, update the aggregate's row first and enqueue then: its lock puts the transactions in
//! order. On SQLite there is one writer at a time, and the two orders are the same. All this is for one primary: where several servers take
//! writes and each gives out numbers of its own (Galera, multi-source replication), the order of a key is that of nothing.
//!
//! [`RepeatedIds::SecondCopy`](pillarbox_core::RepeatedIds): an id that is enqueued twice is delivered twice. There is no unique index
//! that could fail the application's transaction.
//!
//! What is committed survives what the database's own commits survive: SQLite is set to `journal_mode=WAL` and `synchronous=FULL`, and the
//! start warns about a PostgreSQL or MySQL that is set to lose commits in a crash.
//!
//! A claim alone is not waited for: on PostgreSQL (`synchronous_commit=off` for that one transaction) and SQLite (`synchronous=NORMAL`)
//! it is answered before it is on the disk. A settlement is, with every claim before it. A crash of the server, or of SQLite's machine,
//! may so undo the last claims: their messages can be claimed at once, and the relay that holds them still is fenced when it settles. That
//! is what an expired lease looks like, and costs duplicates only.
//!
//! # A lane is held as a whole
//!
//! While a relay holds a run of a lane, the messages behind it wait, also those of other keys. A run that was handed back with a delay
//! holds up its lane too; a suspect holds up its key alone.
//!
//! # Each database
//!
//! - **SQLite**: several processes may use one file. A claim that finds nothing takes no lock. Waiting relays look fifty times a second
//!   whether something was committed (`PRAGMA data_version`, some microseconds). Not on a network file system. A process that is stopped
//!   (not killed) while it writes stops all writers; theirs are then outages.
//! - **PostgreSQL** 12 and later: an enqueue notifies the channel of the outbox's name, once per transaction, and waiting relays wake at its
//!   commit. Behind a pooler in transaction mode, such as PgBouncer, add `outbox.transaction_pooler=true` to the URL: relays then poll, since such
//!   a pooler hands no notifications on. PgBouncer needs `ignore_startup_parameters = extra_float_digits`, as for other clients. Claims stay
//!   fast while vacuum is held up, by an idle transaction or a long report: a handle remembers where each lane begins. A transaction that
//!   has itself enqueued and stays open keeps that from moving on, since its messages come before the later ones. A relay that vanishes in
//!   the middle of a transaction keeps its locks for `outbox.response_timeout` (`idle_in_transaction_session_timeout`).
//! - **MySQL** 8 and **MariaDB** 10.6 and later: there is no way to tell of a commit, so relays poll. Connections are set to `READ COMMITTED`.
//!   Keys that differ only in spaces at their end may wait for each other. Sessions of the pool, also those that the application takes from
//!   it, end when they were idle for two minutes, and on MariaDB within a transaction for three times
//!   `outbox.response_timeout`: a relay that vanishes keeps its locks no longer.
//!
//! # Retention
//!
//! By default a settlement deletes what was published. `outbox.keep_published=true` keeps it in the table until
//! [`purge_published`](pillarbox_core::Admin::purge_published) deletes it, row by row. On PostgreSQL `outbox.published_partitions=24h` moves it
//! into the table `pillarbox_published` instead, partitioned by the time of publishing, and a purge drops whole partitions. Dead letters are
//! in neither, and no purge touches them.
//!
//! **Architecture invariant:** nothing here changes a schema unless it is asked to, no statement in the caller's transaction can fail for
//! an id that is there already, and no clock but the database's decides anything.

mod admin;
mod by_url;
mod claim;
mod config;
mod dialect;
mod driver;
mod enqueue;
mod error;
mod keys;
mod lane;
pub mod layout;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod listener;
mod marks;
mod migrate;
mod partitions;
mod record;
mod session;
mod settings;
mod settle;
#[cfg(feature = "postgres")]
pub mod spakky;
mod storage;
mod transaction;
mod url;
mod wakeup;

pub use by_url::{migrate, migrations};
pub use config::SqlConfig;
#[doc(hidden)]
pub use dialect::{Argument, Dialect, Options};
#[cfg(feature = "mysql")]
pub use driver::MYSQL;
#[cfg(feature = "postgres")]
pub use driver::POSTGRES;
#[cfg(feature = "sqlite")]
pub use driver::SQLITE;
#[cfg(feature = "postgres")]
pub use spakky::SpakkyStorage;
pub use storage::SqlStorage;

/// An outbox in SQLite.
#[cfg(feature = "sqlite")]
pub type SqliteStorage = SqlStorage<sqlx::Sqlite>;
/// An outbox in PostgreSQL.
#[cfg(feature = "postgres")]
pub type PostgresStorage = SqlStorage<sqlx::Postgres>;
/// An outbox in MySQL or MariaDB.
#[cfg(feature = "mysql")]
pub type MySqlStorage = SqlStorage<sqlx::MySql>;
