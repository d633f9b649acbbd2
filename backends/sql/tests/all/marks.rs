//! Low-water marks on PostgreSQL: they pass what was deleted, and never a message that is committed late.

use crate::support::{ask, message, postgres, settle_all};
use pillarbox_core::{Content, MessageId, Storage as _, Verdict};
use pillarbox_sql::{PostgresStorage, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::PostgresServer;
use pillarbox_testkit::storage::OutboxSettings;
use std::time::Duration;

async fn opened() -> PostgresStorage {
    let config = postgres(&OutboxSettings::default());
    SqlStorage::migrate(&config).await.unwrap();
    SqlStorage::connect(config).await.unwrap()
}

/// Claims and settles everything; answers it in order.
async fn drain(outbox: &PostgresStorage) -> Vec<MessageId> {
    let mut delivered = Vec::new();
    loop {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        if claimed.entries.is_empty() {
            return delivered;
        }
        delivered.extend(claimed.entries.iter().map(|entry| match &entry.content {
            Content::Message(message) => message.id(),
            Content::Undecodable(record) => panic!("{}", record.reason),
        }));
        settle_all(outbox, &claimed, &Verdict::Published).await;
    }
}

/// Delivers so many messages that every mark moves on as far as it may, several times.
async fn pass_by(outbox: &PostgresStorage) {
    for _ in 0..10 {
        outbox.enqueue_alone(&(0..1_000).map(|_| message(None)).collect::<Vec<_>>()).await.unwrap();
        drain(outbox).await;
    }
}

/// A transaction enqueues, and commits only after thousands of later messages were delivered, some of its own key: it is still
/// delivered, and before what was enqueued after its commit.
#[tokio::test]
async fn a_late_commit_is_never_passed() {
    let outbox = opened().await;
    outbox.enqueue_alone(&[message(Some("key"))]).await.unwrap();
    drain(&outbox).await;
    let late = [message(Some("key")), message(None)];
    let mut transaction = outbox.pool().begin().await.unwrap();
    outbox.append(&mut transaction, &late).await.unwrap();
    pass_by(&outbox).await;
    transaction.commit().await.unwrap();
    let after = message(Some("key"));
    outbox.enqueue_alone(std::slice::from_ref(&after)).await.unwrap();
    let delivered = drain(&outbox).await;
    let place = |id| delivered.iter().position(|delivered| *delivered == id);
    assert_eq!(delivered.len(), 3, "{delivered:?}");
    assert!(place(late[0].id()) < place(after.id()), "the key stays in order");
}

/// What is claimed is still in its lane: marks stop before it.
#[tokio::test]
async fn messages_behind_the_marks_come_back_in_order() {
    let outbox = opened().await;
    let held: Vec<_> = (0..3).map(|_| message(Some("key"))).collect();
    outbox.enqueue_alone(&held).await.unwrap();
    // A run that is handed back stays where it is, while others pass.
    let claimed = outbox.claim(ask(10)).await.unwrap();
    pass_by(&outbox).await;
    settle_all(&outbox, &claimed, &Verdict::Release { after: Duration::ZERO }).await;
    let delivered = drain(&outbox).await;
    let expected: Vec<_> = held.iter().map(pillarbox_core::Message::id).collect();
    let of_key: Vec<_> = delivered.into_iter().filter(|id| expected.contains(id)).collect();
    assert_eq!(of_key, expected);
}

/// Between a claim and its settlement the table is written anew, and other messages lie where the claimed ones lay: those that were
/// claimed are removed, and no other one.
#[tokio::test]
async fn messages_that_moved_are_settled_all_the_same() {
    let outbox = opened().await;
    let table = format!("{}_message", outbox.name());
    for moves in [&[][..], &["UPDATE @ SET attempts = 0"], &["UPDATE @ SET attempts = 0", "VACUUM FULL @"]] {
        outbox.enqueue_alone(&(0..64).map(|_| message(None)).collect::<Vec<_>>()).await.unwrap();
        drain(&outbox).await;
        let (claimed, waiting): (Vec<_>, Vec<_>) =
            (0..20).map(|_| (message(Some("claimed")), message(Some("claimed")))).unzip();
        outbox.enqueue_alone(&claimed).await.unwrap();
        outbox.enqueue_alone(&waiting).await.unwrap();
        let run = outbox.claim(ask(20)).await.unwrap();
        for statement in moves {
            let statement = sqlx::AssertSqlSafe(statement.replace('@', &table));
            sqlx::raw_sql(statement).execute(outbox.pool()).await.unwrap();
        }
        settle_all(&outbox, &run, &Verdict::Published).await;
        let delivered: Vec<_> = drain(&outbox).await;
        let expected: Vec<_> = waiting.iter().map(pillarbox_core::Message::id).collect();
        assert_eq!(delivered, expected, "{moves:?}");
    }
}

/// Another server takes the place of the first and has not heard of its last messages: places are given out again, and none is passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_end_with_their_server() {
    let server = tokio::task::spawn_blocking(|| PostgresServer::start().unwrap()).await.unwrap();
    let outbox = crate::support::opened(SqlConfig::<sqlx::Postgres>::from_url(&server.url()).unwrap()).await;
    pass_by(&outbox).await;
    let back = "ALTER TABLE pillarbox_message ALTER COLUMN seq RESTART WITH 1";
    sqlx::query(back).execute(outbox.pool()).await.unwrap();
    let restarting = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let _server = restarting.await.unwrap();
    let sent = [message(Some("key")), message(None)];
    // Connections of the first server end at their first use.
    while outbox.enqueue_alone(&sent).await.is_err() {}
    let mut expected: Vec<_> = sent.iter().map(pillarbox_core::Message::id).collect();
    let mut delivered = drain(&outbox).await;
    delivered.sort_unstable();
    expected.sort_unstable();
    assert_eq!(delivered, expected);
}
