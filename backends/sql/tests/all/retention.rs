//! Published messages that are kept in partitions, on PostgreSQL.

use crate::support::{ask, kept, message, opened, postgres, settle_all};
use pillarbox_core::{Admin as _, ErrorKind, Settlements, Storage as _, TestClock, Text, Verdict};
use pillarbox_sql::{PostgresStorage, SqlConfig, SqlStorage};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

async fn publish(outbox: &PostgresStorage, count: usize) {
    outbox
        .enqueue_alone(&vec![(); count].iter().map(|()| message(Some("key"))).collect::<Vec<_>>())
        .await
        .unwrap();
    let claimed = outbox.claim(ask(100)).await.unwrap();
    assert_eq!(claimed.entries.len(), count);
    settle_all(outbox, &claimed, &Verdict::Published).await;
}

/// Tables of published messages with how many each has, by name.
async fn tables(outbox: &PostgresStorage) -> Vec<(String, i64)> {
    let name = outbox.name();
    let sql =
        format!("SELECT tableoid::regclass::text, count(*) FROM {name}_published GROUP BY 1 ORDER BY 1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(outbox.pool()).await.unwrap()
}

async fn partitions(outbox: &PostgresStorage) -> i64 {
    let sql =
        format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{}_published'::regclass", outbox.name());
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(outbox.pool()).await.unwrap()
}

#[tokio::test]
async fn old_partitions_are_dropped_whole() {
    let clock = TestClock::new();
    let config = postgres(&kept(true));
    let config = config.published_partitions(DAY).test_clock(clock.clone());
    let outbox = opened(config.clone()).await;
    assert_eq!(partitions(&outbox).await, 4, "this day, two more, and the rest");
    publish(&outbox, 3).await;
    clock.advance(DAY);
    publish(&outbox, 4).await;
    let stored = tables(&outbox).await;
    assert_eq!(stored.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 4], "{stored:?}");
    assert!(stored.iter().all(|(name, _)| !name.ends_with("rest")), "{stored:?}");

    // Nothing is dropped before all of a partition is old enough; the first day ends within a day.
    assert_eq!(outbox.purge_published(2 * DAY, 1).await.unwrap(), 0);
    clock.advance(2 * DAY);
    assert_eq!(outbox.purge_published(2 * DAY, 1).await.unwrap(), 3, "a whole partition, whatever the limit");
    assert_eq!(outbox.purge_published(2 * DAY, 1).await.unwrap(), 0);
    assert_eq!(tables(&outbox).await.len(), 1);
    clock.advance(DAY);
    assert_eq!(outbox.purge_published(2 * DAY, 1).await.unwrap(), 4);
    assert!(tables(&outbox).await.is_empty());

    // Nobody purged for a month: there is no partition, and nothing is lost or refused.
    clock.advance(30 * DAY);
    publish(&outbox, 5).await;
    let stored = tables(&outbox).await;
    assert!(stored.len() == 1 && stored[0].0.ends_with("rest"), "{stored:?}");
    assert_eq!(outbox.stats().await.unwrap().published, 5);
    clock.advance(DAY);
    assert_eq!(
        outbox.purge_published(Duration::ZERO, 2).await.unwrap(),
        2,
        "row by row, as many as asked for"
    );
    publish(&outbox, 1).await;
    let stored = tables(&outbox).await;
    assert_eq!(stored.len(), 2, "partitions were made again: {stored:?}");
    assert_eq!(outbox.purge_published(Duration::ZERO, 100).await.unwrap(), 3);
}

/// Only what was published goes there: what is dead, waits or is claimed is in no partition.
#[tokio::test]
async fn partitions_hold_published_messages_only() {
    let clock = TestClock::new();
    let config = postgres(&kept(true));
    let outbox = opened(config.published_partitions(DAY).test_clock(clock.clone())).await;
    outbox.enqueue_alone(&[(); 4].map(|()| message(None))).await.unwrap();
    let claimed = outbox.claim(ask(4)).await.unwrap();
    let mut call = Settlements::new();
    let mut verdicts = [
        Verdict::Published,
        Verdict::Bury { reason: Text::from_static("no") },
        Verdict::Retry { after: Duration::from_secs(60), error: Text::from_static("later") },
        Verdict::Release { after: Duration::from_secs(60) },
    ]
    .into_iter();
    for run in &claimed.runs {
        call.verdicts(run.token, verdicts.by_ref().take(run.len as usize).collect::<Vec<_>>());
    }
    outbox.settle(&call).await.unwrap();
    clock.advance(400 * DAY);
    let mut purged = 0;
    while let count @ 1.. = outbox.purge_published(Duration::ZERO, 10).await.unwrap() {
        purged += count;
    }
    assert_eq!(purged, 1);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.dead, stats.pending, stats.published), (1, 2, 0));
}

/// A long report over published messages does not hold up relays behind a purge: the purge gives up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_waits_for_nobody_for_long() {
    let clock = TestClock::new();
    let config = postgres(&kept(true));
    let outbox = opened(config.published_partitions(DAY).test_clock(clock.clone())).await;
    publish(&outbox, 3).await;
    let mut report = outbox.pool().begin().await.unwrap();
    let sql = format!("SELECT count(*) FROM {}_published", outbox.name());
    let counted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *report).await.unwrap();
    assert_eq!(counted, 3);
    clock.advance(3 * DAY);
    let refused = outbox.purge_published(DAY, 10).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{}", refused.report());
    publish(&outbox, 2).await;
    report.rollback().await.unwrap();
    assert_eq!(outbox.purge_published(DAY, 10).await.unwrap(), 3);
}

#[tokio::test]
async fn partitions_are_a_setting_of_the_outbox() {
    let config = postgres(&kept(true));
    opened(config.clone().published_partitions(DAY)).await;
    let other = SqlStorage::connect(config.clone().published_partitions(2 * DAY)).await.unwrap_err();
    assert!(other.to_string().contains("`outbox.published_partitions`"), "{other}");
    SqlStorage::connect(config).await.unwrap();
    for (url, part) in [
        ("postgres://h/d?outbox.published_partitions=90m", "whole hours"),
        ("postgres://h/d?outbox.published_partitions=24h&outbox.keep_published=false", "leave one out"),
    ] {
        let error = SqlConfig::<sqlx::Postgres>::from_url(url).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let elsewhere =
        SqlConfig::<sqlx::MySql>::from_url("mysql://h/d?outbox.published_partitions=24h").unwrap_err();
    assert!(elsewhere.to_string().contains("is for PostgreSQL"), "{elsewhere}");
}
