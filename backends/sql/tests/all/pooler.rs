//! PostgreSQL behind a pooler in transaction mode.

use crate::support::{ask, fresh_name, message, postgres_server, settle_all};
use pillarbox_core::{Content, ErrorKind, Storage as _, Verdict};
use pillarbox_sql::{PostgresStorage, SqlConfig};
use pillarbox_testkit::servers::PgBouncer;
use sqlx::Postgres;
use std::collections::HashSet;

/// Producers and relays whose transactions run now on this connection, now on that: everything is delivered once, and relays poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_works_behind_a_pooler_in_transaction_mode() {
    let pooler = PgBouncer::start(postgres_server().address()).unwrap();
    let url = format!("{}?outbox.transaction_pooler=true&outbox.name={}", pooler.url(), fresh_name());
    let config = SqlConfig::<Postgres>::from_url(&url).unwrap();
    assert_eq!(PostgresStorage::migrate(&config).await.unwrap(), [1]);
    assert!(PostgresStorage::migrate(&config).await.unwrap().is_empty());
    let mut working = Vec::new();
    for _ in 0..4 {
        let config = config.clone();
        working.push(tokio::spawn(async move {
            let outbox = PostgresStorage::connect(config).await.unwrap();
            assert!(outbox.wakeup().is_none(), "such a pooler hands no notifications on");
            let (mut enqueued, mut delivered) = (Vec::new(), Vec::new());
            for round in 0..30 {
                let batch = [message(Some("key")), message(None), message(None)];
                if round < 20 {
                    let mut transaction = outbox.pool().begin().await.unwrap();
                    outbox.append(&mut transaction, &batch).await.unwrap();
                    transaction.commit().await.unwrap();
                    enqueued.extend(batch.iter().map(pillarbox_core::Message::id));
                }
                let claimed = outbox.claim(ask(20)).await.unwrap();
                for entry in &claimed.entries {
                    let Content::Message(message) = &entry.content else { panic!("unreadable") };
                    delivered.push(message.id());
                }
                settle_all(&outbox, &claimed, &Verdict::Published).await;
            }
            (enqueued, delivered)
        }));
    }
    let (mut enqueued, mut delivered) = (HashSet::new(), Vec::new());
    for work in working {
        let (some, others) = work.await.unwrap();
        enqueued.extend(some);
        delivered.extend(others);
    }
    let outbox = PostgresStorage::connect(config).await.unwrap();
    loop {
        let claimed = outbox.claim(ask(100)).await.unwrap();
        if claimed.entries.is_empty() {
            break;
        }
        delivered.extend(claimed.entries.iter().filter_map(|entry| match &entry.content {
            Content::Message(message) => Some(message.id()),
            Content::Undecodable(_) => None,
        }));
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!(delivered.len(), 240);
    assert_eq!(delivered.into_iter().collect::<HashSet<_>>(), enqueued);
}

/// The option belongs to PostgreSQL, and elsewhere it says so.
#[test]
fn other_databases_have_no_such_pooler() {
    let error =
        SqlConfig::<sqlx::MySql>::from_url("mysql://root@localhost/db?outbox.transaction_pooler=true");
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("`outbox.transaction_pooler` is for PostgreSQL"), "{error}");
}
