//! The schema by URL, for programs that choose the database at run time.

use crate::config::misconfigured;
use crate::dialect::Dialect;
use crate::{SqlConfig, SqlStorage};
use pillarbox_core::Error;

/// Makes the tables of the outbox that a URL names, or brings them to this program's version: see [`SqlStorage::migrate`].
///
/// # Errors
/// `Misconfigured` if no enabled feature knows the scheme; else as [`SqlStorage::migrate`].
///
/// # Cancel safety
/// As [`SqlStorage::migrate`].
pub async fn migrate(url: &str) -> Result<Vec<usize>, Error> {
    #[cfg(feature = "sqlite")]
    if is_of::<sqlx::Sqlite>(url) {
        return SqlStorage::migrate(&SqlConfig::<sqlx::Sqlite>::from_url(url)?).await;
    }
    #[cfg(feature = "postgres")]
    if is_of::<sqlx::Postgres>(url) {
        return SqlStorage::migrate(&SqlConfig::<sqlx::Postgres>::from_url(url)?).await;
    }
    #[cfg(feature = "mysql")]
    if is_of::<sqlx::MySql>(url) {
        return SqlStorage::migrate(&SqlConfig::<sqlx::MySql>::from_url(url)?).await;
    }
    Err(unknown())
}

/// The steps of the schema as text, for the outbox that a URL names: see [`SqlStorage::migrations`]. Nothing is connected to.
///
/// # Errors
/// `Misconfigured` if no enabled feature knows the scheme, or for a wrong option.
pub fn migrations(url: &str) -> Result<Vec<String>, Error> {
    #[cfg(feature = "sqlite")]
    if is_of::<sqlx::Sqlite>(url) {
        return steps::<sqlx::Sqlite>(url);
    }
    #[cfg(feature = "postgres")]
    if is_of::<sqlx::Postgres>(url) {
        return steps::<sqlx::Postgres>(url);
    }
    #[cfg(feature = "mysql")]
    if is_of::<sqlx::MySql>(url) {
        return steps::<sqlx::MySql>(url);
    }
    Err(unknown())
}

fn steps<D: Dialect>(url: &str) -> Result<Vec<String>, Error> {
    Ok(SqlStorage::<D>::migrations(&SqlConfig::<D>::from_url(url)?.name))
}

fn is_of<D: Dialect>(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    D::SCHEMES.contains(&scheme.as_str())
}

fn unknown() -> Error {
    let known: Vec<&str> = [
        #[cfg(feature = "sqlite")]
        <sqlx::Sqlite as Dialect>::SCHEMES,
        #[cfg(feature = "postgres")]
        <sqlx::Postgres as Dialect>::SCHEMES,
        #[cfg(feature = "mysql")]
        <sqlx::MySql as Dialect>::SCHEMES,
    ]
    .concat();
    misconfigured(format!(
        "only SQL stores have a schema, and this URL's scheme is none of those that are enabled: {}",
        known.join(", ")
    ))
}
