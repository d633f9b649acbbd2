//! What several tests need: databases, and outboxes of their own in them.

use pillarbox_sql::SqlConfig;
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::Sqlite;
use tempfile::TempDir;

/// A folder with a file for one outbox, and the configuration for it.
pub(crate) fn sqlite(settings: &OutboxSettings) -> (TempDir, SqlConfig<Sqlite>) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("outbox.db").display());
    let config = SqlConfig::from_url(&url).unwrap();
    (folder, with(config, settings))
}

/// The settings of a case.
pub(crate) fn with<D: pillarbox_sql::Dialect>(
    config: SqlConfig<D>,
    settings: &OutboxSettings,
) -> SqlConfig<D> {
    config
        .head_policy(settings.head_policy)
        .max_strikes(settings.max_strikes)
        .keep_published(settings.keep_published)
}
