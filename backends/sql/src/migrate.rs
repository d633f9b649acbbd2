//! The schema: made only when somebody asks for it.

use crate::config::misconfigured;
use crate::dialect::Dialect;
use crate::layout::{Tables, VERSION};
use crate::partitions;
use crate::session::words;
use crate::{SqlConfig, SqlStorage, error};
use pillarbox_core::{Error, ErrorKind};
use sqlx::Connection as _;
use std::collections::HashMap;
use std::time::Duration;

impl<D: Dialect> SqlStorage<D> {
    /// Makes the outbox's tables, or brings them to this program's version. Answers the versions that were applied; none if all
    /// is as it should be. Nothing else ever changes the schema; [`migrations`](Self::migrations) gives the same steps as text, for other
    /// tools. Several programs may call it at the same time: one applies, the others wait for it. SQLite's file is made if it is not there.
    ///
    /// # Errors
    /// `Misconfigured` for a database that cannot be used, or that has a later version; `Unavailable` if it does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all versions applied or none; on MySQL, whose schema changes are no transactions, possibly half of one,
    /// and then the call can be repeated.
    pub async fn migrate(config: &SqlConfig<D>) -> Result<Vec<usize>, Error> {
        config.check()?;
        let map = |failure| error::map::<D>(failure, "migrate", &config.place);
        let mut config = config.clone();
        config.options = D::creating(&config);
        let pool = Self::pool_of(&config, 1).await.map_err(map)?;
        let mut connection = pool.acquire().await.map_err(map)?;
        let applied = if D::TRANSACTIONAL_MIGRATIONS {
            let mut transaction = connection.begin_with(D::BEGIN).await.map_err(map)?;
            let applied = apply::<D>(&mut transaction, &config).await?;
            transaction.commit().await.map_err(map)?;
            applied
        } else {
            // The lock ends with the connection.
            apply::<D>(&mut connection, &config).await?
        };
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

/// Applies what is missing, while no other migration of this outbox does.
async fn apply<D: Dialect>(
    connection: &mut D::Connection,
    config: &SqlConfig<D>,
) -> Result<Vec<usize>, Error> {
    let map = |failure| error::map::<D>(failure, "migrate", &config.place);
    let tables = Tables::new(&config.name);
    if let Some(lock) = D::MIGRATION_LOCK {
        let sql = words::<D>(&tables, lock);
        let rows = D::query(connection, sql, Vec::new(), false).await.map_err(map)?;
        if rows.first().map(|row| D::int(row, 0)).transpose().map_err(map)?.flatten() != Some(1) {
            return Err(Error::new(ErrorKind::Unavailable, "migrate")
                .describe(format!("another migration of the outbox {:?} is still running", config.name))
                .not_applied());
        }
    }
    let sql = words::<D>(&tables, D::HAS_SETTINGS);
    let rows = D::query(connection, sql, Vec::new(), false).await.map_err(map)?;
    let is_new = rows.first().map(|row| D::int(row, 0)).transpose().map_err(map)?.flatten() != Some(1);
    let stored =
        if is_new { HashMap::new() } else { stored_settings::<D>(connection, &tables).await.map_err(map)? };
    let version = stored.get("schema_version").and_then(|version| version.parse().ok()).unwrap_or(0);
    if version > VERSION {
        return Err(misconfigured(format!(
            "the outbox {:?} has the schema version {version}, and this program knows up to {VERSION}; update it",
            config.name
        )));
    }
    let mut applied = Vec::new();
    for (index, migration) in D::MIGRATIONS.iter().enumerate().skip(version) {
        D::script(connection, tables.rename(migration)).await.map_err(map)?;
        applied.push(index + 1);
    }
    let stored = stored.get("published_partitions").and_then(|seconds| seconds.parse().ok());
    let stored = stored.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    if let Some(length) = config.published_partitions.or(stored) {
        partitions::make_ahead::<D>(connection, config, length).await.map_err(map)?;
    }
    Ok(applied)
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
