//! What stops the start: settings, credentials, servers.

use crate::support::{HANGS, TOPIC, all_ok, failure, message, publish, server, stream};
use async_nats::jetstream::stream::Config;
use pillarbox_core::{Destination, Effect, Error, ErrorKind, Transport as _};
use pillarbox_nats::NatsTransport;
use pillarbox_testkit::servers::{NatsServer, free_port};
use std::time::Duration;

/// The error of opening, which must not open.
async fn refused(url: &str) -> Error {
    let opened = tokio::time::timeout(HANGS, NatsTransport::open(url)).await;
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
async fn a_wrong_password_and_a_right_one() {
    let server = NatsServer::start_with("authorization { user: ann, password: \"r!ght\" }").unwrap();
    let address = server.address().to_string();
    let url = |login: &str| format!("nats://{login}{address}/");
    for (login, name) in [("ann:s3cret@", "ann@"), ("bob:s3cret@", "bob@"), ("s3cret@", ""), ("", "")] {
        let error = refused(&url(login)).await;
        says(&error, ErrorKind::Misconfigured, &["password", &format!("{name}{address}")]);
    }
    let opened = NatsTransport::open(&url("ann:r%21ght@")).await.unwrap();
    assert!(!format!("{opened:?}").contains("r!ght"));
}

#[tokio::test]
async fn a_token() {
    let server = NatsServer::start_with("authorization { token: \"t0ken\" }").unwrap();
    let address = server.address();
    says(&refused(&format!("nats://s3cret@{address}")).await, ErrorKind::Misconfigured, &["token"]);
    NatsTransport::open(&format!("nats://t0ken@{address}")).await.unwrap();
}

#[tokio::test]
async fn a_server_without_jetstream() {
    let server = NatsServer::start_with("jetstream: disabled").unwrap();
    says(&refused(&server.url()).await, ErrorKind::Misconfigured, &["JetStream is not enabled"]);
}

#[tokio::test]
async fn nobody_there() {
    let url = format!("nats://ann:s3cret@127.0.0.1:{}", free_port().unwrap());
    says(&refused(&url).await, ErrorKind::Unavailable, &["ann@127.0.0.1", "is it running"]);
    // One of several is enough.
    let server = server().await;
    NatsTransport::open(&format!("nats://127.0.0.1:{},{}", free_port().unwrap(), server.address()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let server = server().await;
    server.pause().unwrap();
    let error = refused(&format!("{}?transport.connect_timeout=300ms", server.url())).await;
    says(&error, ErrorKind::Unavailable, &["transport.connect_timeout"]);
}

#[tokio::test]
async fn an_authority_that_is_trusted_and_one_that_is_not() {
    let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, identity.cert.pem()).unwrap();
    std::fs::write(&key, identity.signing_key.serialize_pem()).unwrap();
    let settings =
        format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate.display(), key.display());
    let server = NatsServer::start_with(&settings).unwrap();
    let url = server.url().replace("nats://", "tls://");
    let trusting = format!("{url}?transport.root_certificates={}", certificate.display());
    let transport = NatsTransport::open(&trusting).await.unwrap_or_else(|error| panic!("{}", error.report()));
    transport.probe(Destination::ONLY).await.unwrap();
    // The system's authorities do not know it.
    let error = refused(&url).await;
    says(&error, ErrorKind::Misconfigured, &["transport.root_certificates", "ertificate"]);
}

#[tokio::test]
async fn tls_that_the_server_does_not_offer() {
    let server = server().await;
    let url = server.url().replace("nats://", "tls://ann:s3cret@");
    let error = refused(&url).await;
    says(&error, error.kind(), &["ann@127.0.0.1"]);
}

#[tokio::test]
async fn files_that_are_not_there_or_not_right() {
    let server = server().await;
    let url = |option: &str, path: &str| format!("{}?transport.{option}={path}", server.url());
    let error = refused(&url("credentials", "/nowhere/user.creds")).await;
    says(
        &error,
        ErrorKind::Misconfigured,
        &["transport.credentials", "/nowhere/user.creds", "cannot be read"],
    );
    let path = server.folder().path().join("user.creds");
    std::fs::write(&path, "-----BEGIN NATS USER JWT-----\nabc\n-----BEGIN USER NKEY SEED-----\ns3cret\n")
        .unwrap();
    let error = refused(&url("credentials", path.to_str().unwrap())).await;
    says(&error, ErrorKind::Misconfigured, &["transport.credentials", "seed"]);
}

#[tokio::test]
async fn a_stream_that_is_not_there() {
    let server = NatsServer::start().unwrap();
    let url = format!("{}?transport.stream=ORDERS", server.url());
    let error = refused(&format!("{url}&transport.verify=true")).await;
    says(&error, ErrorKind::Misconfigured, &["transport.verify", "ORDERS"]);
    // Without the setting a relay may start before its topology.
    let transport = NatsTransport::open(&url).await.unwrap();
    assert_eq!(failure(&transport, message(TOPIC, None, "x")).await.kind(), ErrorKind::Unroutable);
    stream(&server, Config::default()).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
    NatsTransport::open(&format!("{url}&transport.verify=true")).await.unwrap();
}

/// A user who may publish to one subject only, and not ask JetStream anything, can be the relay's.
#[tokio::test]
async fn few_permissions_are_enough_and_a_denied_subject_is_unroutable() {
    let server = NatsServer::start_with(
        "authorization { users = [ { user: admin, password: admin },
           { user: relay, password: relay, permissions: { publish: [\"orders.created\"], subscribe: [\"_IN.>\"] } } ] }",
    )
    .unwrap();
    let url = server.url().replace("nats://", "nats://admin:admin@");
    let context = async_nats::jetstream::new(
        async_nats::ConnectOptions::new()
            .user_and_password("admin".into(), "admin".into())
            .connect(&url)
            .await
            .unwrap(),
    );
    context
        .create_stream(Config {
            name: "ORDERS".into(),
            subjects: vec!["orders.>".into()],
            ..Config::default()
        })
        .await
        .unwrap();
    let url = server.url().replace("nats://", "nats://relay:relay@");
    let transport = NatsTransport::open(&format!("{url}?transport.inbox_prefix=_IN.relay")).await.unwrap();
    let batch = [message(TOPIC, None, "a"), message("orders.secret", None, "b"), message(TOPIC, None, "c")];
    let mut outcomes = publish(&transport, &batch).await;
    let error = outcomes.take(1).unwrap().unwrap_err();
    says(&error, ErrorKind::Unroutable, &["orders.secret", "permissions"]);
    assert!(outcomes.take(0).unwrap().is_ok() && outcomes.take(2).unwrap().is_ok());
}

#[tokio::test]
async fn opening_and_dropping_leaves_no_connection() {
    let server = server().await;
    let proxy = pillarbox_testkit::servers::Proxy::start(server.address()).unwrap();
    let url = proxy.through(&server.url());
    let transport = NatsTransport::open(&url).await.unwrap();
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
    assert_eq!(proxy.open_connections(), 1);
    drop(transport);
    let begin = std::time::Instant::now();
    while proxy.open_connections() > 0 {
        assert!(begin.elapsed() < HANGS, "the connection stays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn by_url_through_a_registry() {
    let server = server().await;
    let registry = pillarbox_core::Registry::new().with_transport(pillarbox_nats::DRIVER);
    let transport = registry.transport(&server.url()).await.unwrap();
    let mut outcomes = pillarbox_core::Outcomes::new();
    outcomes.reset(1);
    transport.publish(&[message(TOPIC, None, "x")], &mut outcomes).await;
    all_ok(&outcomes);
}
