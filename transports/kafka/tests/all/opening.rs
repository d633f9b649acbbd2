//! What stops the start: settings, credentials, brokers.

use crate::support::{HANGS, TOPIC, all_ok, message, publish, server, server_behind_proxy};
use pillarbox_core::{Effect, Error, ErrorKind, Transport as _};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::{KafkaServer, free_port};
use std::time::{Duration, Instant};

/// The error of opening, which must not open.
async fn refused(url: &str) -> Error {
    let opened = tokio::time::timeout(HANGS, KafkaTransport::open(url)).await;
    opened.expect("opening hangs").expect_err("it opened")
}

/// The kind, the words that must be there, and that nothing secret is.
fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let shown = format!("{error} {error:?} {}", error.report());
    assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied), "{shown}");
    for word in words {
        assert!(shown.contains(word), "{word} is not in: {shown}");
    }
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn nobody_listens() {
    let port = free_port().unwrap();
    let url = format!("kafka://ann:s3cret@127.0.0.1:{port}");
    // It is refused at once, and not after the limit, of which the error would tell.
    says(&refused(&url).await, ErrorKind::Unavailable, &["ann@127.0.0.1", "no broker answers"]);
}

/// A server that accepts and says nothing.
#[tokio::test]
async fn nobody_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("kafka://{}?transport.connect_timeout=300ms", listener.local_addr().unwrap());
    says(&refused(&url).await, ErrorKind::Unavailable, &["transport.connect_timeout"]);
}

/// Of several brokers one is enough.
#[tokio::test]
async fn one_of_several() {
    let (server, port) = (server(), free_port().unwrap());
    let url = format!("kafka://127.0.0.1:{port},{}", server.address());
    let transport = KafkaTransport::open(&url).await.unwrap();
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
}

#[tokio::test]
async fn settings_of_librdkafka() {
    let server = server();
    let with = |query: &str| format!("{}?{query}", server.url());
    let error = refused(&with("compresion.codec=lz4")).await;
    says(&error, ErrorKind::Misconfigured, &["`compresion.codec`"]);
    let error = refused(&with("ssl.key.password=s3cret&ssl.key.passwort=s3cret")).await;
    says(&error, ErrorKind::Misconfigured, &["`ssl.key.pass"]);
    let transport = KafkaTransport::open(&with("compression.codec=lz4&linger.ms=1")).await.unwrap();
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_and_dropping_leaves_no_connection() {
    let server = server_behind_proxy();
    let transport = KafkaTransport::open(&server.url()).await.unwrap();
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
    assert!(server.proxy().open_connections() > 0);
    drop(transport);
    let begin = Instant::now();
    while server.proxy().open_connections() > 0 {
        assert!(begin.elapsed() < HANGS, "the connection stays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The broker lets nobody in without a user, and with none that it does not know.
#[tokio::test]
async fn a_broker_that_lets_nobody_in() {
    let server = KafkaServer::options().topic(TOPIC, 1).authentication().start().unwrap();
    let url = format!("{}?transport.connect_timeout=2s", server.url());
    // librdkafka is not told why the broker ends its connection.
    let error = refused(&url).await;
    says(&error, ErrorKind::Unavailable, &[]);
    let mechanisms: &[&str] =
        if cfg!(feature = "tls") { &["plain", "scram-sha-256", "scram-sha-512"] } else { &["plain"] };
    for mechanism in mechanisms {
        let url = format!("{}&transport.sasl={mechanism}", url.replace("//", "//ann:s3cret@"));
        says(&refused(&url).await, ErrorKind::Misconfigured, &["ann@127.0.0.1", "SASL"]);
    }
}

#[tokio::test]
async fn by_url_through_a_registry() {
    let server = server();
    let registry = pillarbox_core::Registry::new().with_transport(pillarbox_kafka::DRIVER);
    let transport = registry.transport(&server.url()).await.unwrap();
    let mut outcomes = pillarbox_core::Outcomes::new();
    outcomes.reset(1);
    transport.publish(&[message(TOPIC, None, "x")], &mut outcomes).await;
    all_ok(&outcomes);
}
