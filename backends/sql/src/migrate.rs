//! The schema: made only when somebody asks for it.

use crate::config::misconfigured;
use crate::dialect::Dialect;
use crate::layout::{Tables, VERSION};
use crate::session::words;
use crate::{SqlConfig, SqlStorage, error};
use pillarbox_core::Error;
use sqlx::Connection as _;
use std::collections::HashMap;

impl<D: Dialect> SqlStorage<D> {
    /// Makes the outbox's tables, or brings them to this program's version. Answers the versions that were applied; none if all
    /// is as it should be. Nothing else ever changes the schema; [`migrations`](Self::migrations) gives the same steps as text, for other
    /// tools.
    ///
    /// # Errors
    /// `Misconfigured` for a database that cannot be used, or that has a later version; `Unavailable` if it does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each version applied or not; on MySQL, whose schema changes are no transactions, possibly half
    /// applied.
    pub async fn migrate(config: &SqlConfig<D>) -> Result<Vec<usize>, Error> {
        config.check()?;
        let tables = Tables::new(&config.name);
        let map = |failure| error::map::<D>(failure, "migrate", &config.place);
        let pool = D::pool(
            sqlx::pool::PoolOptions::new().max_connections(1).acquire_timeout(config.connect_timeout),
        );
        let pool = pool.connect_with(config.options.clone()).await.map_err(map)?;
        let mut connection = pool.acquire().await.map_err(map)?;
        let mut reading = connection.begin().await.map_err(map)?;
        let stored = stored_settings::<D>(&mut reading, &tables).await;
        reading.rollback().await.map_err(map)?;
        let version = match stored {
            Ok(stored) => stored.get("schema_version").and_then(|version| version.parse().ok()).unwrap_or(0),
            // No such table: a new outbox.
            Err(failure) if is_absent(&failure) => 0,
            Err(failure) => return Err(map(failure)),
        };
        if version > VERSION {
            return Err(misconfigured(format!(
                "the outbox {:?} has the schema version {version}, and this program knows up to {VERSION}; update it",
                config.name
            )));
        }
        let mut applied = Vec::new();
        for (index, migration) in D::MIGRATIONS.iter().enumerate().skip(version) {
            let script = tables.rename(migration);
            if D::TRANSACTIONAL_MIGRATIONS {
                let mut transaction = connection.begin().await.map_err(map)?;
                D::script(&mut transaction, script).await.map_err(map)?;
                transaction.commit().await.map_err(map)?;
            } else {
                D::script(&mut connection, script).await.map_err(map)?;
            }
            applied.push(index + 1);
        }
        drop(connection);
        pool.close().await;
        Ok(applied)
    }

    /// The steps of the schema as text, oldest first, for an outbox of this name: for a migration tool of your own. Each ends by
    /// storing its version.
    pub fn migrations(name: &str) -> Vec<String> {
        let tables = Tables::new(name);
        D::MIGRATIONS.iter().map(|migration| tables.rename(migration)).collect()
    }
}

/// Everything that is stored about the outbox as a whole.
pub(crate) async fn stored_settings<D: Dialect>(
    connection: &mut D::Connection,
    tables: &Tables,
) -> Result<HashMap<String, String>, sqlx::Error> {
    let sql = words::<D>(tables, "SELECT name, value FROM {setting}");
    let rows = D::query(connection, sql, Vec::new(), false).await?;
    let pairs = rows
        .iter()
        .map(|row| Ok((D::text(row, 0)?.unwrap_or_default(), D::text(row, 1)?.unwrap_or_default())));
    pairs.collect()
}

fn is_absent(failure: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = failure else { return false };
    let code = error.code();
    match code.as_deref().unwrap_or_default() {
        "42P01" | "42S02" => true,
        "1" => error.message().contains("no such table"),
        _ => false,
    }
}
