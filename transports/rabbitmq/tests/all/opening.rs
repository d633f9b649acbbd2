//! What stops the start: settings and credentials.

use crate::support::{Place, control, refused};
use lapin::ExchangeKind;
use pillarbox_core::{Effect, Error, ErrorKind};
use pillarbox_rabbitmq::RabbitMqTransport;
use pillarbox_testkit::servers::{RabbitMqNode, free_port};

/// The kind, the words that must be there, and that nothing secret is.
fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let shown = format!("{error} {error:?} {}", error.report());
    assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied), "{shown}");
    for word in words {
        assert!(shown.contains(word), "{word} is not in: {shown}");
    }
    assert!(!shown.contains("s3cret") && !shown.contains(":guest@"), "{shown}");
}

#[tokio::test]
async fn a_wrong_password() {
    let place = Place::shared().await;
    let url = place.url().replace("guest:guest@", "guest:s3cret@");
    let address = place.host.node().address().to_string();
    says(&refused(&url).await, ErrorKind::Misconfigured, &["password", "guest@", &address]);
    let url = place.url().replace("guest:guest@", "nobody:s3cret@");
    says(&refused(&url).await, ErrorKind::Misconfigured, &["password", "nobody@"]);
}

#[tokio::test]
async fn a_virtual_host_that_is_not_there() {
    let place = Place::shared().await;
    let url = place.url().replace(place.host.name(), "elsewhere");
    says(&refused(&url).await, ErrorKind::Misconfigured, &["virtual host", "elsewhere"]);
}

#[tokio::test]
async fn a_user_without_permissions() {
    let place = Place::shared().await;
    let (node, host) = (RabbitMqNode::shared().unwrap(), place.host.name());
    control(node, &["add_user", "reader", "s3cret"]).await;
    let url = place.url().replace("guest:guest@", "reader:s3cret@");
    says(&refused(&url).await, ErrorKind::Misconfigured, &["virtual host", "reader@"]);
    control(node, &["set_permissions", "--vhost", host, "reader", "", "", ".*"]).await;
    let url = format!("{url}?transport.exchange=orders&transport.declare=topic");
    says(&refused(&url).await, ErrorKind::Misconfigured, &["permissions", "orders"]);
}

#[tokio::test]
async fn an_exchange_that_is_not_there() {
    let place = Place::shared().await;
    let url = format!("{}?transport.exchange=orders", place.url());
    let error = refused(&format!("{url}&transport.verify=true")).await;
    says(&error, ErrorKind::Misconfigured, &["transport.verify", "orders", "transport.declare"]);
    // Without the setting a relay may start before its topology, and with it once the exchange is there, of whatever type.
    RabbitMqTransport::open(&url).await.unwrap();
    place.exchange("orders", ExchangeKind::Fanout).await;
    RabbitMqTransport::open(&format!("{url}&transport.verify=true")).await.unwrap();
}

#[tokio::test]
async fn an_exchange_of_another_type() {
    let place = Place::shared().await;
    place.exchange("orders", ExchangeKind::Fanout).await;
    let url = format!("{}?transport.exchange=orders&transport.declare=topic", place.url());
    says(&refused(&url).await, ErrorKind::Misconfigured, &["transport.declare", "orders"]);
    RabbitMqTransport::open(&url.replace("topic", "fanout")).await.unwrap();
}

#[tokio::test]
async fn nobody_listens() {
    let url = format!("amqp://guest:s3cret@127.0.0.1:{}", free_port().unwrap());
    says(&refused(&url).await, ErrorKind::Unavailable, &["guest@127.0.0.1"]);
}

/// Something that accepts and never speaks costs the time to connect, and no more.
#[tokio::test]
async fn nobody_speaks() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("amqp://guest:s3cret@{address}?transport.connect_timeout=300ms");
    says(&refused(&url).await, ErrorKind::Unavailable, &["transport.connect_timeout", &address.to_string()]);
    // Nothing of it is left: the socket is closed, and with it the client's thread has ended.
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let mut sent = Vec::new();
    std::io::Read::read_to_end(&mut accepted, &mut sent).unwrap();
    assert_eq!(sent, b"AMQP\x00\x00\x09\x01");
}

/// A server of another protocol.
#[tokio::test]
async fn another_protocol() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
    });
    let error = refused(&format!("amqp://guest:s3cret@{address}?transport.connect_timeout=2s")).await;
    server.join().unwrap();
    let shown = format!("{error} {error:?} {}", error.report());
    assert!(shown.contains(&address.to_string()) && !shown.contains("s3cret"), "{shown}");
}
