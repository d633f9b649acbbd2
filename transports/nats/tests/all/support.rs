//! What several tests need.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use pillarbox_core::{Error, Message, Outcomes, Transport as _};
use pillarbox_nats::{KEY_HEADER, NatsConfig, NatsTransport};
use pillarbox_testkit::servers::NatsServer;
use pillarbox_testkit::transport::{BoxError, Received};
use std::time::Duration;

/// The stream of the tests, and its subjects.
pub(crate) const STREAM: &str = "ORDERS";
pub(crate) const SUBJECTS: &str = "orders.>";
pub(crate) const TOPIC: &str = "orders.created";

/// A publish that takes longer hangs: far above every timeout that the tests set.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

/// A server with a stream on disk.
pub(crate) async fn server() -> NatsServer {
    let server = NatsServer::start().unwrap();
    stream(&server, stream::Config::default()).await;
    server
}

/// Makes the stream, with these settings beside its name and subjects.
pub(crate) async fn stream(server: &NatsServer, config: stream::Config) {
    let config = stream::Config { name: STREAM.to_owned(), subjects: vec![SUBJECTS.to_owned()], ..config };
    context(server).await.create_stream(config).await.unwrap();
}

pub(crate) async fn context(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

pub(crate) fn config(server: &NatsServer) -> NatsConfig {
    NatsConfig::from_url(&server.url()).unwrap()
}

pub(crate) async fn transport(server: &NatsServer) -> NatsTransport {
    NatsTransport::connect(config(server)).await.unwrap_or_else(|error| panic!("{}", error.report()))
}

pub(crate) fn message(topic: &str, key: Option<&str>, payload: &str) -> Message {
    let message = Message::to(topic.to_owned());
    match key {
        Some(key) => message.key(key.to_owned()).payload(payload.to_owned()).unwrap(),
        None => message.payload(payload.to_owned()).unwrap(),
    }
}

/// Publishes to the end, and fails if there is none.
pub(crate) async fn publish(transport: &NatsTransport, batch: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    let published = tokio::time::timeout(HANGS, transport.publish(batch, &mut outcomes)).await;
    published.expect("the publish hangs");
    assert!(outcomes.is_complete(), "a message has no outcome: {outcomes:?}");
    outcomes
}

pub(crate) fn all_ok(outcomes: &Outcomes) {
    for index in 0..outcomes.len() {
        assert!(
            matches!(outcomes.outcome(index), Some(Ok(()))),
            "message {index}: {:?}",
            outcomes.outcome(index)
        );
    }
}

/// Publishes one message that fails.
pub(crate) async fn failure(transport: &NatsTransport, message: Message) -> Error {
    publish(transport, &[message]).await.take(0).unwrap().unwrap_err()
}

/// Everything in the stream as it was stored, in order.
pub(crate) async fn stored(server: &NatsServer) -> Result<Vec<jetstream::Message>, BoxError> {
    let mut stream = context(server).await.get_stream(STREAM).await?;
    let count = usize::try_from(stream.info().await?.state.messages)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut stored = Vec::with_capacity(count);
    let mut messages =
        consumer.fetch().max_messages(count).expires(Duration::from_secs(10)).messages().await?;
    while let Some(message) = messages.next().await {
        stored.push(message?);
    }
    if stored.len() != count {
        return Err(format!("read {} of {count} messages", stored.len()).into());
    }
    Ok(stored)
}

/// The same as a consumer of the outbox understands it.
pub(crate) async fn received(server: &NatsServer) -> Result<Vec<Received>, BoxError> {
    stored(server).await?.iter().map(read).collect()
}

/// The payloads in the stream, in order.
pub(crate) async fn payloads(server: &NatsServer) -> Vec<String> {
    let received = received(server).await.unwrap();
    received.into_iter().map(|received| String::from_utf8(received.payload).unwrap()).collect()
}

fn read(message: &jetstream::Message) -> Result<Received, BoxError> {
    let (mut id, mut key, mut content_type, mut headers) = (None, None, None, Vec::new());
    for (name, values) in message.headers.as_ref().ok_or("no headers")?.iter() {
        let name: &str = name.as_ref();
        let [value] = values.as_slice() else { return Err(format!("`{name}` is there twice").into()) };
        let value = value.as_str().to_owned();
        match name {
            "Nats-Msg-Id" => id = Some(value.parse()?),
            "Content-Type" => content_type = Some(value),
            KEY_HEADER => key = Some(value),
            _ => headers.push((percent_decode_str(name).decode_utf8()?.into_owned(), value)),
        }
    }
    headers.sort();
    Ok(Received {
        id: id.ok_or("no id")?,
        topic: message.subject.to_string(),
        key,
        headers,
        payload: message.payload.to_vec(),
        content_type,
    })
}
