//! What several tests need.

use pillarbox_core::{Error, Message, Outcomes, Transport as _};
use pillarbox_redis_streams::{RedisStreamsConfig, RedisStreamsTransport};
use pillarbox_testkit::servers::RedisServer;
use pillarbox_testkit::transport::{BoxError, Received};
use redis::streams::{StreamId, StreamRangeReply};
use std::time::Duration;

/// A server that writes everything to disk before it answers.
pub(crate) fn server() -> RedisServer {
    RedisServer::options().append_only().start().unwrap()
}

pub(crate) fn config(server: &RedisServer) -> RedisStreamsConfig {
    RedisStreamsConfig::from_url(&server.url()).unwrap().confirm_timeout(Duration::from_secs(5))
}

pub(crate) async fn transport(server: &RedisServer) -> RedisStreamsTransport {
    RedisStreamsTransport::connect(config(server)).await.unwrap()
}

pub(crate) fn message(topic: &str, key: Option<&str>, payload: &str) -> Message {
    let message = Message::to(topic.to_owned());
    match key {
        Some(key) => message.key(key.to_owned()).payload(payload.to_owned()).unwrap(),
        None => message.payload(payload.to_owned()).unwrap(),
    }
}

pub(crate) async fn publish(transport: &RedisStreamsTransport, batch: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    transport.publish(batch, &mut outcomes).await;
    assert!(outcomes.is_complete());
    outcomes
}

/// Publishes one message that fails.
pub(crate) async fn failure(transport: &RedisStreamsTransport, message: Message) -> Error {
    publish(transport, &[message]).await.take(0).unwrap().unwrap_err()
}

/// Everything in one stream, in order.
pub(crate) async fn received(server: &RedisServer, stream: &str) -> Result<Vec<Received>, BoxError> {
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let entries: StreamRangeReply =
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await?;
    entries.ids.iter().map(|entry| read(entry, stream)).collect()
}

/// The payloads in one stream, in order.
pub(crate) async fn payloads(server: &RedisServer, stream: &str) -> Vec<String> {
    let received = received(server, stream).await.unwrap();
    received.into_iter().map(|received| String::from_utf8(received.payload).unwrap()).collect()
}

fn read(entry: &StreamId, stream: &str) -> Result<Received, BoxError> {
    let required =
        |name: &str| entry.get::<Vec<u8>>(name).ok_or_else(|| format!("an entry without `{name}`"));
    let text =
        |name: &str| required(name).and_then(|text| String::from_utf8(text).map_err(|e| e.to_string()));
    let mut headers = Vec::new();
    for name in entry.map.keys() {
        if let Some(header) = name.strip_prefix(pillarbox_redis_streams::HEADER_PREFIX) {
            headers.push((header.to_owned(), text(name)?));
        }
    }
    headers.sort();
    Ok(Received {
        id: text("id")?.parse()?,
        topic: stream.to_owned(),
        key: entry.get("key"),
        headers,
        payload: required("payload")?,
        content_type: entry.get("content_type"),
    })
}
