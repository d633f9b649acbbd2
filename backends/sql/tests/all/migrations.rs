//! The schema: made when somebody asks for it, by us or by tools that know nothing of us.

use crate::clients::{Client, Own};
use crate::support::{ask, fresh_name, ids, mariadb, message, opened, postgres, settle_all, sqlite};
use pillarbox_core::{ErrorKind, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage, SqliteStorage};
use pillarbox_testkit::storage::OutboxSettings;

/// Several replicas of a service migrate when they are deployed: one of them applies, the others find it done.
async fn several_may_migrate_at_once<D: Dialect>(config: SqlConfig<D>) {
    let migrating: Vec<_> = (0..6)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { SqlStorage::migrate(&config).await })
        })
        .collect();
    let mut applied = Vec::new();
    for migrating in migrating {
        applied.extend(migrating.await.unwrap().unwrap());
    }
    assert_eq!(applied, [1], "each version once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_migrate_sqlite_at_once() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    several_may_migrate_at_once(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_migrate_postgres_at_once() {
    several_may_migrate_at_once(postgres(&OutboxSettings::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_migrate_mariadb_at_once() {
    several_may_migrate_at_once(mariadb(&OutboxSettings::default())).await;
}

/// Schema changes of MySQL are no transactions: a migration that was cut short after any statement can be run again.
#[tokio::test]
async fn a_migration_of_mariadb_that_was_cut_short_goes_on() {
    let whole = SqlStorage::<sqlx::MySql>::migrations("whole").remove(0);
    let statements = whole.matches(";\n").count();
    assert!(statements > 3, "{whole}");
    for cut in 1..statements {
        let config = mariadb(&OutboxSettings::default()).name(fresh_name());
        let script = SqlStorage::<sqlx::MySql>::migrations(&config_name(&config)).remove(0);
        let part: String = script.split_inclusive(";\n").take(cut).collect();
        let pool = sqlx::MySqlPool::connect(&crate::support::mariadb_server().url()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(part)).execute(&pool).await.unwrap();
        assert_eq!(SqlStorage::migrate(&config).await.unwrap(), [1]);
        works(&SqlStorage::connect(config).await.unwrap()).await;
    }
}

fn config_name<D: Dialect>(config: &SqlConfig<D>) -> String {
    let shown = format!("{config:?}");
    let (_, rest) = shown.split_once("name: \"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

async fn works<S: Storage + pillarbox_core::EnqueueAlone>(outbox: &S) {
    let sent = message(Some("key"));
    outbox.enqueue_alone(std::slice::from_ref(&sent)).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    assert_eq!(ids(&claimed), [sent.id()]);
    settle_all(outbox, &claimed, &Verdict::Published).await;
}

/// The files of `migrations/`, applied by the database's own client, are the schema that a start expects.
async fn files_are_applied_by_another_tool<D: Dialect>(client: &Own, file: &str)
where
    SqlStorage<D>: Storage + pillarbox_core::EnqueueAlone,
{
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/");
    let config = SqlConfig::<D>::from_url(&client.url()).unwrap();
    let refused = SqlStorage::connect(config.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured, "{}", refused.report());
    assert!(refused.to_string().contains("pillarbox migrate"), "{refused}");
    client.run(&std::fs::read_to_string(format!("{folder}{file}")).unwrap());
    works(&SqlStorage::connect(config.clone()).await.unwrap()).await;
    assert!(SqlStorage::migrate(&config).await.unwrap().is_empty(), "nothing is left to do");
}

#[tokio::test]
async fn files_are_applied_by_another_tool_to_sqlite() {
    files_are_applied_by_another_tool::<sqlx::Sqlite>(&Own::new(Client::Python), "sqlite/0001_outbox.sql")
        .await;
}

#[tokio::test]
async fn files_are_applied_by_another_tool_to_postgres() {
    files_are_applied_by_another_tool::<sqlx::Postgres>(&Own::new(Client::Psql), "postgres/0001_outbox.sql")
        .await;
}

#[tokio::test]
async fn files_are_applied_by_another_tool_to_mariadb() {
    files_are_applied_by_another_tool::<sqlx::MySql>(&Own::new(Client::MariaDb), "mysql/0001_outbox.sql")
        .await;
}

/// A migration makes SQLite's file, since it is asked to; a relay does not.
#[tokio::test]
async fn only_a_migration_makes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("outbox.db").display());
    let missing = SqliteStorage::open(&url).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Misconfigured, "{}", missing.report());
    assert!(missing.to_string().contains("pillarbox migrate"), "{missing}");
    assert!(!folder.path().join("outbox.db").exists());
    let config = SqlConfig::<sqlx::Sqlite>::from_url(&url).unwrap();
    works(&opened(config).await).await;
    works(&SqliteStorage::open(&url).await.unwrap()).await;
}
