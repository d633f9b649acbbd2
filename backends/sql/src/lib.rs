//! The SQL storages of the Pillarbox outbox: SQLite, PostgreSQL, and MySQL or MariaDB, on `sqlx`.

mod admin;
mod claim;
mod config;
mod dialect;
mod driver;
mod enqueue;
mod error;
mod keys;
mod lane;
pub mod layout;
mod migrate;
mod record;
mod session;
mod settings;
mod settle;
mod storage;
mod url;
mod wakeup;

pub use config::SqlConfig;
pub use dialect::{Argument, Dialect, Options};
#[cfg(feature = "mysql")]
pub use driver::MYSQL;
#[cfg(feature = "postgres")]
pub use driver::POSTGRES;
#[cfg(feature = "sqlite")]
pub use driver::SQLITE;
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
