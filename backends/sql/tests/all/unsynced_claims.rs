//! A claim is answered before it is on the disk. A crash may undo it, and then nothing is lost and no old token is taken for a new one.

use crate::support::{ask, ids, message, opened, settle_all, sqlite};
use pillarbox_core::{ErrorKind, Outcome, Settlements, Storage as _, Token, Verdict};
use pillarbox_sql::{Dialect as _, SqlConfig, SqlStorage, SqliteStorage};
use pillarbox_testkit::servers::PostgresServer;
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::{Postgres, Sqlite};
use std::time::Duration;

/// A server that crashes with what it has not been made to write.
async fn crashing(server: &PostgresServer) -> SqlStorage<Postgres> {
    // The default, 200 ms, would be a race.
    let rarely = "ALTER SYSTEM SET wal_writer_delay = '10s'".to_owned();
    let outbox = opened(SqlConfig::<Postgres>::from_url(&server.url()).unwrap()).await;
    Postgres::script(&mut *outbox.pool().acquire().await.unwrap(), rarely).await.unwrap();
    crash(server, &outbox).await;
    outbox
}

/// Kills the server and starts it again, and makes the calls of the handle that learn of it.
async fn crash(server: &PostgresServer, outbox: &SqlStorage<Postgres>) {
    server.restart().unwrap();
    let nothing = ask(0);
    let mut connections = Vec::new();
    for _ in 0..outbox.pool().size() {
        while let Err(error) = outbox.claim(nothing).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        }
        connections.push(outbox.pool().acquire().await.unwrap());
    }
}

/// Whether a settlement with this token is taken.
async fn settled(outbox: &SqlStorage<Postgres>, token: Token, messages: usize) -> Outcome {
    let mut call = Settlements::new();
    call.verdicts(token, vec![Verdict::Published; messages]);
    outbox.settle(&call).await.unwrap()[0].outcome
}

#[tokio::test]
async fn a_claim_that_a_crash_undid_is_fenced_by_its_nonce_and_what_was_settled_stays() {
    let server = PostgresServer::start().unwrap();
    let outbox = crashing(&server).await;
    let sent = [message(Some("key")), message(Some("key"))];
    // What was claimed and settled before moves the handle's marks.
    outbox.enqueue_alone(&[message(Some("key"))]).await.unwrap();
    settle_all(&outbox, &outbox.claim(ask(9)).await.unwrap(), &Verdict::Published).await;
    outbox.enqueue_alone(&sent).await.unwrap();
    let undone = outbox.claim(ask(9)).await.unwrap();
    crash(&server, &outbox).await;
    let again = outbox.claim(ask(9)).await.unwrap();
    assert_eq!(ids(&again), sent.map(|message| message.id()));
    let (before, after) = (undone.runs[0].token, again.runs[0].token);
    assert_eq!((before.unit, before.fence), (after.unit, after.fence), "the crash has undone the claim");
    assert_eq!(settled(&outbox, before, 2).await, Outcome::Fenced);
    assert_eq!(settled(&outbox, after, 2).await, Outcome::Applied);
    crash(&server, &outbox).await;
    assert_eq!(settled(&outbox, after, 2).await, Outcome::AlreadyApplied);
    let last = message(Some("key"));
    outbox.enqueue_alone(std::slice::from_ref(&last)).await.unwrap();
    assert_eq!(ids(&outbox.claim(ask(9)).await.unwrap()), [last.id()]);
}

/// How much the connections of the pool sync: 2 is `FULL`.
async fn levels(outbox: &SqliteStorage) -> Vec<i64> {
    let mut connections = Vec::new();
    for _ in 0..outbox.pool().size() {
        connections.push(outbox.pool().acquire().await.unwrap());
    }
    let mut levels = Vec::new();
    for connection in &mut connections {
        let level = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut **connection).await;
        levels.push(level.unwrap());
    }
    levels
}

/// The application may take a connection of the pool, and what it commits has to be on the disk.
#[tokio::test]
async fn no_connection_keeps_what_a_claim_has_set() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    let outbox = opened(config.response_timeout(Duration::from_millis(400))).await;
    outbox.enqueue_alone(&[message(None), message(None)]).await.unwrap();
    assert_eq!(outbox.claim(ask(1)).await.unwrap().entries.len(), 1);
    assert!(levels(&outbox).await.iter().all(|level| *level == 2), "after a claim");

    let mut writing = outbox.pool().begin_with(Sqlite::BEGIN).await.unwrap();
    outbox.append(&mut writing, &[message(None)]).await.unwrap();
    outbox.claim(ask(1)).await.unwrap_err();
    writing.commit().await.unwrap();
    assert!(levels(&outbox).await.iter().all(|level| *level == 2), "after a claim that could not begin");

    for turns in 0..60 {
        let others = async {
            for _ in 0..turns * turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            claimed = outbox.claim(ask(1)) => drop(claimed.unwrap()),
            () = others => {}
        }
        assert!(
            levels(&outbox).await.iter().all(|level| *level == 2),
            "after a claim dropped in turn {turns}"
        );
    }
}
