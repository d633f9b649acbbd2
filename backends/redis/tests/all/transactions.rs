//! The producer's half: inside the caller's own transactions.

use crate::support::{ask, config, connection, message, server};
use pillarbox_core::{ErrorKind, Limits, Message, Storage as _, TestClock};
use pillarbox_redis::{Durability, RedisConfig, RedisStorage};
use pillarbox_testkit::servers::RedisServer;
use std::time::Duration;

async fn outbox() -> RedisStorage {
    RedisStorage::connect(config(&TestClock::new())).await.unwrap()
}

#[tokio::test]
async fn a_pipeline_that_is_no_transaction_is_refused() {
    let outbox = outbox().await;
    let mut pipeline = redis::pipe();
    let error = outbox.append(&mut pipeline, &[message(None)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("atomic()"), "{error}");
    assert!(pipeline.is_empty());
}

#[tokio::test]
async fn the_caller_s_reply_keeps_its_shape() {
    let outbox = outbox().await;
    let mut connection = connection(server()).await;
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("HSET").arg("shape").arg("state").arg("created");
    outbox.append(&mut transaction, &[message(None), message(Some("a"))]).unwrap();
    transaction.cmd("HGET").arg("shape").arg("state");
    outbox.append(&mut transaction, &[message(Some("b"))]).unwrap();
    let (added, state): (u64, String) = transaction.query_async(&mut connection).await.unwrap();
    assert_eq!((added, &*state), (1, "created"));
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn only_plain_commands_are_appended() {
    let outbox = outbox().await;
    let mut transaction = redis::pipe();
    transaction.atomic();
    let scheduled =
        Message::to("t").deliver_at(pillarbox_core::Timestamp::from_millis(9)).payload("").unwrap();
    outbox.append(&mut transaction, &[message(None), message(Some("a")), scheduled]).unwrap();
    let commands: Vec<_> = transaction
        .cmd_iter()
        .map(|command| match command.args_iter().next() {
            Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        })
        .collect();
    // A script that the server does not know would fail alone, and `EXEC` would commit the rest.
    assert!(commands.iter().all(|name| name == "RPUSH" || name == "PUBLISH"), "{commands:?}");
    assert_eq!(commands.last().map(String::as_str), Some("PUBLISH"));
}

#[tokio::test]
async fn a_refused_message_leaves_the_transaction_as_it_was() {
    let config = config(&TestClock::new()).limits(Limits::with_max_payload(4).unwrap());
    let outbox = RedisStorage::connect(config).await.unwrap();
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("SET").arg("x").arg(1);
    let large = Message::to("t").payload("12345").unwrap();
    let error = outbox.append(&mut transaction, &[message(None), large]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("the limit is 4"), "{error}");
    assert_eq!(transaction.len(), 1);
}

#[tokio::test]
async fn a_transaction_that_is_discarded_leaves_no_message() {
    let outbox = outbox().await;
    let mut connection = connection(server()).await;
    let mut transaction = redis::pipe();
    outbox.append(transaction.atomic(), &[message(None)]).unwrap();
    // A command that the server refuses while queueing aborts the whole.
    transaction.cmd("NOSUCHCOMMAND");
    assert!(transaction.exec_async(&mut connection).await.is_err());
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 0);
}

#[test]
fn a_blocking_client_enqueues_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outbox = runtime.block_on(outbox());
    let mut connection = redis::Client::open(server().url()).unwrap().get_connection().unwrap();
    let mut transaction = redis::pipe();
    outbox.append(transaction.atomic(), &[message(None)]).unwrap();
    transaction.exec(&mut connection).unwrap();
    assert_eq!(runtime.block_on(outbox.claim(ask(10))).unwrap().entries.len(), 1);
}

#[tokio::test]
async fn without_hints_nothing_is_published() {
    let outbox = RedisStorage::connect(config(&TestClock::new()).notify(false)).await.unwrap();
    let mut transaction = redis::pipe();
    outbox.append(transaction.atomic(), &[message(None)]).unwrap();
    assert_eq!(transaction.len(), 1);
}

#[tokio::test]
async fn durability_waits_for_a_replica() {
    let primary = RedisServer::start().unwrap();
    let config = RedisConfig::from_url(&primary.url())
        .unwrap()
        .durability(Durability::Wait)
        .durability_timeout(Duration::from_millis(100));
    let outbox = RedisStorage::connect(config.clone()).await.unwrap();
    let error = outbox.enqueue_alone(&[message(None)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("only 0 of 1 replicas"), "{error}");

    let _replica = RedisServer::options().replica_of(&primary).start().unwrap();
    primary.wait_for("connected_slaves:1").unwrap();
    let patient = config.durability_timeout(Duration::from_secs(20));
    let outbox = RedisStorage::connect(patient).await.unwrap();
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    let mut own = connection(&primary).await;
    let mut transaction = redis::pipe();
    outbox.append(transaction.atomic(), &[message(None)]).unwrap();
    transaction.exec_async(&mut own).await.unwrap();
    outbox.confirm(&mut own).await.unwrap();
    // The one that was not confirmed was stored all the same.
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn a_server_without_waitaof_is_told() {
    let config = config(&TestClock::new()).durability(Durability::WaitAof);
    let outbox = RedisStorage::connect(config).await.unwrap();
    let answer = outbox.enqueue_alone(&[message(None)]).await;
    // Redis 7.2 knows it, and confirms or not; before that it is a wrong setting.
    if let Err(error) = answer {
        assert!(matches!(error.kind(), ErrorKind::Misconfigured | ErrorKind::Unavailable), "{error:?}");
        assert!(error.to_string().contains("stored"), "{error}");
    }
}
