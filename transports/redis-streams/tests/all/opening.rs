//! Opening, and what is told when it cannot be done.

use crate::support::{config, server, transport};
use pillarbox_core::{Destination, Effect, Error, ErrorKind, Registry, Transport as _};
use pillarbox_redis_streams::{DRIVER, RedisStreamsTransport};
use pillarbox_testkit::servers::{RedisServer, free_port};
use std::time::Duration;

fn shown(error: &Error) -> String {
    format!("{error} {error:?} {}", error.report())
}

#[tokio::test]
async fn opens_by_url_through_the_registry() {
    let server = server();
    let registry = Registry::new().with_transport(DRIVER);
    let transport = registry.transport(&format!("{}?transport.prefix=a:", server.url())).await.unwrap();
    transport.probe(Destination::ONLY).await.unwrap();
    let unknown = registry.transport(&format!("{}?transport.exchange=a", server.url())).await.unwrap_err();
    assert!(unknown.to_string().contains("`transport.prefix`"), "{unknown}");
}

#[tokio::test]
async fn a_wrong_password_is_misconfigured_and_shown_nowhere() {
    let server = RedisServer::options().password("r1ght-s3cret").start().unwrap();
    let place = server.address();
    for url in [format!("redis://:wr0ng-s3cret@{place}/"), format!("redis://{place}/")] {
        let error = RedisStreamsTransport::open(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
        assert!(error.to_string().contains(&place.to_string()), "{error}");
        assert!(!shown(&error).contains("s3cret"), "{}", shown(&error));
    }
    let opened = RedisStreamsTransport::open(&server.url()).await.unwrap();
    assert!(!format!("{opened:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let port = free_port().unwrap();
    let error = RedisStreamsTransport::open(&format!("redis://:s3cret@127.0.0.1:{port}/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")) && !shown(&error).contains("s3cret"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable() {
    let server = server();
    let opened = RedisStreamsTransport::connect(config(&server).connect_timeout(Duration::from_secs(1)))
        .await
        .unwrap();
    server.pause().unwrap();
    let config = config(&server).connect_timeout(Duration::from_millis(300));
    let error = RedisStreamsTransport::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let error = opened.probe(Destination::ONLY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.resume().unwrap();
    opened.probe(Destination::ONLY).await.unwrap();
}

#[tokio::test]
async fn a_server_that_would_evict_streams_is_refused() {
    let server = server();
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let error = RedisStreamsTransport::connect(config(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("`maxmemory-policy` allkeys-lru"), "{error}");
}

#[tokio::test]
async fn a_user_who_may_only_add_is_enough_and_one_who_may_not_is_told() {
    let server = server();
    let user = |name: &str, rules: &[&str]| {
        server.command(&[&["ACL", "SETUSER", name, "on", ">s3cret"], rules].concat()).unwrap();
        format!("redis://{name}:s3cret@{}/", server.address())
    };
    let adder = user("adder", &["~orders", "+xadd", "+eval", "+ping", "+client"]);
    let adder = RedisStreamsTransport::open(&adder).await.unwrap();
    adder.probe(Destination::ONLY).await.unwrap();
    let message = |topic| crate::support::message(topic, None, "x");
    assert!(crate::support::publish(&adder, &[message("orders")]).await.outcome(0).unwrap().is_ok());
    let elsewhere = crate::support::failure(&adder, message("invoices")).await;
    assert_eq!(elsewhere.kind(), ErrorKind::Unroutable, "{elsewhere:?}");

    let two = ["a", "b"].map(|payload| crate::support::message("orders", Some("key"), payload));
    let outcomes = crate::support::publish(&adder, &two).await;
    for index in 0..2 {
        let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Misconfigured, Effect::Unknown), "{error:?}");
    }

    let reader = user("reader", &["~*", "+info", "+ping", "+client"]);
    let reader = RedisStreamsTransport::open(&reader).await.unwrap();
    let denied = crate::support::failure(&reader, message("orders")).await;
    assert_eq!(denied.kind(), ErrorKind::Misconfigured, "{denied:?}");
    assert!(denied.to_string().contains("+xadd") && !shown(&denied).contains("s3cret"), "{denied}");
}

#[tokio::test]
async fn clones_share_a_connection() {
    let server = server();
    let first = transport(&server).await;
    let second = first.clone();
    first.probe(Destination::ONLY).await.unwrap();
    second.probe(Destination::ONLY).await.unwrap();
    // One is the asking one's own.
    server.wait_for("connected_clients:2").unwrap();
}
