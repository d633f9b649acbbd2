//! Servers that fail in the middle.

use crate::support::{config, failure, message, payloads, publish, received, server, transport};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_redis_streams::{RedisStreamsConfig, RedisStreamsTransport};
use pillarbox_testkit::servers::{Proxy, RedisServer};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_full_server_is_unavailable_and_takes_nothing() {
    let server = server();
    let transport = transport(&server).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let batch = [
        message("orders", None, "x"),
        message("orders", Some("a"), "a1"),
        message("orders", Some("a"), "a2"),
    ];
    let outcomes = publish(&transport, &batch).await;
    for index in 0..batch.len() {
        let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
        assert!(error.to_string().contains("maxmemory"), "{error}");
    }
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    let outcomes = publish(&transport, &batch).await;
    assert!((0..3).all(|index| outcomes.outcome(index).unwrap().is_ok()));
    assert_eq!(received(&server, "orders").await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_replica_is_unavailable_and_the_connection_is_made_again() {
    let primary = server();
    let other = RedisServer::start().unwrap();
    let transport = transport(&primary).await;
    let port = other.address().port().to_string();
    primary.command(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let error = failure(&transport, message("orders", None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
    primary.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert!(publish(&transport, &[message("orders", None, "x")]).await.outcome(0).unwrap().is_ok());
}

#[tokio::test]
async fn replicas_are_waited_for() {
    let primary = server();
    let config = config(&primary).replicas(1).confirm_timeout(Duration::from_secs(2));
    let transport = RedisStreamsTransport::connect(config).await.unwrap();
    let error = failure(&transport, message("orders", None, "early")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    assert!(error.to_string().contains("`transport.replicas` is 1"), "{error}");
    let replica = RedisServer::options().replica_of(&primary).start().unwrap();
    let mut confirmed = false;
    for _ in 0..20 {
        confirmed = publish(&transport, &[message("orders", None, "late")]).await.outcome(0).unwrap().is_ok();
        if confirmed {
            break;
        }
    }
    assert!(confirmed);
    assert!(payloads(&replica, "orders").await.contains(&"late".to_owned()));
}

/// What a relay does: sends again what was not confirmed, each key from its first failure on.
async fn deliver(transport: &RedisStreamsTransport, mut left: Vec<Message>) -> u32 {
    let mut calls = 0;
    while !left.is_empty() {
        calls += 1;
        assert!(calls < 1_000, "{} messages are never confirmed", left.len());
        let mut outcomes = Outcomes::new();
        outcomes.reset(left.len());
        transport.publish(&left, &mut outcomes).await;
        let mut failed = Vec::new();
        for (index, message) in left.into_iter().enumerate() {
            match outcomes.take(index) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Unavailable,
                        "an outage is charged to nobody: {error:?}"
                    );
                    failed.push(message);
                }
                None => failed.push(message),
            }
        }
        left = failed;
        if !left.is_empty() && transport.probe(Destination::ONLY).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    calls
}

/// Keyed and unkeyed messages.
fn mixed(numbers: Range<usize>) -> Vec<Message> {
    let key = |number: usize| (!number.is_multiple_of(5)).then(|| format!("key-{}", number % 5));
    numbers.map(|number| message("orders", key(number).as_deref(), &number.to_string())).collect()
}

/// Nothing is lost, and first arrivals of a key are in order.
async fn all_arrived_in_order(server: &RedisServer, count: usize) {
    let mut seen = HashSet::new();
    let mut last = [None; 5];
    for payload in payloads(server, "orders").await {
        let number: usize = payload.parse().unwrap();
        if seen.insert(number) && !number.is_multiple_of(5) {
            assert!(last[number % 5] < Some(number), "{number} after {:?}", last[number % 5]);
            last[number % 5] = Some(number);
        }
    }
    assert_eq!(seen.len(), count, "lost");
}

/// Calls `disturb` each time that the stream has grown by `every` entries, on a thread of its own, until it has been called so
/// often. A restart must not be waited for by who publishes.
fn disturb_as_it_grows(
    server: &Arc<RedisServer>,
    times: usize,
    every: usize,
    disturb: impl Fn() + Send + 'static,
) -> JoinHandle<()> {
    let server = server.clone();
    tokio::task::spawn_blocking(move || {
        for time in 1..=times {
            let grown = || {
                let length = server.command(&["XLEN", "orders"]).unwrap_or_default();
                length.parse::<usize>().unwrap_or(0) >= time * every
            };
            let begin = Instant::now();
            while !grown() {
                assert!(begin.elapsed() < Duration::from_secs(60), "the stream does not grow");
                std::thread::yield_now();
            }
            disturb();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_in_the_middle_nothing_is_lost_and_keys_keep_their_order() {
    let server = Arc::new(server());
    let transport = transport(&server).await;
    let victim = server.clone();
    let killing = disturb_as_it_grows(&server, 6, 500, move || {
        victim.kill();
        victim.restart().unwrap();
    });
    let mut calls = 0;
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 4_000 {
        is_over = killing.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 500)).await;
        sent += 500;
    }
    killing.await.unwrap();
    assert!(calls as usize > sent / 500, "no kill was noticed");
    all_arrived_in_order(&server, sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_in_the_middle_lose_nothing() {
    let server = Arc::new(server());
    let proxy = Arc::new(Proxy::start(server.address()).unwrap());
    let config = RedisStreamsConfig::from_url(&proxy.through(&server.url())).unwrap();
    let transport = RedisStreamsTransport::connect(config).await.unwrap();
    let cut = proxy.clone();
    let breaking = disturb_as_it_grows(&server, 10, 200, move || cut.cut());
    let mut calls = 0;
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 3_000 {
        is_over = breaking.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 300)).await;
        sent += 300;
    }
    breaking.await.unwrap();
    assert!(calls as usize > sent / 300, "no cut was noticed");
    all_arrived_in_order(&server, sent).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_and_works_again_when_it_goes_on() {
    let server = server();
    let config =
        config(&server).confirm_timeout(Duration::from_secs(1)).connect_timeout(Duration::from_secs(1));
    let transport = RedisStreamsTransport::connect(config).await.unwrap();
    server.pause().unwrap();
    let messages = mixed(0..50);
    let outcomes = publish(&transport, &messages).await;
    for index in 0..messages.len() {
        let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    }
    let error = failure(&transport, message("orders", None, "no connection")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
    server.resume().unwrap();
    deliver(&transport, messages).await;
    all_arrived_in_order(&server, 50).await;
}
