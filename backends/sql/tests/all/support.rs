//! What several tests need: databases, and outboxes of their own in them.

use pillarbox_core::{Claim, Claimed, Message, Nonce, Settlements, Storage, Verdict};
use pillarbox_sql::SqlConfig;
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer};
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::{MySql, Postgres, Sqlite};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The servers that the tests of this process share. A guardian kills them when the process ends.
pub(crate) fn postgres_server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start().unwrap())
}

pub(crate) fn mariadb_server() -> &'static MariaDbServer {
    static SERVER: OnceLock<MariaDbServer> = OnceLock::new();
    SERVER.get_or_init(|| MariaDbServer::start().unwrap())
}

/// A name that no other test of this process has.
pub(crate) fn fresh_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("outbox{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// An outbox of its own on the shared server.
pub(crate) fn postgres(settings: &OutboxSettings) -> SqlConfig<Postgres> {
    with(SqlConfig::from_url(&postgres_server().url()).unwrap().name(fresh_name()), settings)
}

/// An outbox of its own on the shared server.
pub(crate) fn mariadb(settings: &OutboxSettings) -> SqlConfig<MySql> {
    with(SqlConfig::from_url(&mariadb_server().url()).unwrap().name(fresh_name()), settings)
}

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

pub(crate) fn message(key: Option<&str>) -> Message {
    let message = Message::to("orders.created");
    match key {
        Some(key) => message.key(key.to_owned()).payload("{}").unwrap(),
        None => message.payload("{}").unwrap(),
    }
}

pub(crate) fn ask(limit: u32) -> Claim {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let nonce = Nonce::from_words(7 << 32 | NUMBER.fetch_add(1, Ordering::Relaxed), 7);
    Claim { limit, lease: Duration::from_secs(30), nonce, solo: false }
}

/// Settles everything that a claim answered with one verdict.
pub(crate) async fn settle_all(outbox: &impl Storage, claimed: &Claimed, verdict: &Verdict) {
    let mut call = Settlements::new();
    for run in &claimed.runs {
        call.verdicts(run.token, vec![verdict.clone(); run.len as usize]);
    }
    outbox.settle(&call).await.unwrap();
}

/// An outbox with its schema, opened.
pub(crate) async fn opened<D: pillarbox_sql::Dialect>(config: SqlConfig<D>) -> pillarbox_sql::SqlStorage<D> {
    pillarbox_sql::SqlStorage::migrate(&config).await.unwrap();
    pillarbox_sql::SqlStorage::connect(config).await.unwrap()
}

/// The messages of a claim, in order.
pub(crate) fn ids(claimed: &Claimed) -> Vec<pillarbox_core::MessageId> {
    let id = |entry: &pillarbox_core::Entry| match &entry.content {
        pillarbox_core::Content::Message(message) => message.id(),
        pillarbox_core::Content::Undecodable(record) => panic!("{}", record.reason),
    };
    claimed.entries.iter().map(id).collect()
}

/// Settings with retention or without.
pub(crate) fn kept(keep_published: bool) -> OutboxSettings {
    let mut settings = OutboxSettings::default();
    settings.keep_published = keep_published;
    settings
}
