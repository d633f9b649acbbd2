//! What several tests need.

use pillarbox_core::{Error, Message, Outcomes, Transport as _};
use pillarbox_kafka::{KafkaConfig, KafkaTransport};
use pillarbox_testkit::servers::KafkaServer;
use pillarbox_testkit::transport::{BoxError, Received};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The topic of the tests.
pub(crate) const TOPIC: &str = "orders.created";
pub(crate) const PARTITIONS: u32 = 4;

/// A publish that takes longer hangs: far above every timeout that the tests set.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

/// A broker with the topic.
pub(crate) fn server() -> KafkaServer {
    let server = KafkaServer::start().unwrap();
    server.create_topic(TOPIC, PARTITIONS).unwrap();
    server
}

/// The same behind a proxy.
pub(crate) fn server_behind_proxy() -> KafkaServer {
    let server = KafkaServer::options().behind_proxy().start().unwrap();
    server.create_topic(TOPIC, PARTITIONS).unwrap();
    server
}

pub(crate) fn config(server: &KafkaServer) -> KafkaConfig {
    KafkaConfig::from_url(&server.url()).unwrap()
}

pub(crate) async fn transport(server: &KafkaServer) -> KafkaTransport {
    connect(config(server)).await
}

pub(crate) async fn connect(config: KafkaConfig) -> KafkaTransport {
    KafkaTransport::connect(config).await.unwrap_or_else(|error| panic!("{}", error.report()))
}

pub(crate) fn message(topic: &str, key: Option<&str>, payload: &str) -> Message {
    let message = Message::to(topic.to_owned());
    match key {
        Some(key) => message.key(key.to_owned()).payload(payload.to_owned()).unwrap(),
        None => message.payload(payload.to_owned()).unwrap(),
    }
}

/// Publishes to the end, and fails if there is none.
pub(crate) async fn publish(transport: &KafkaTransport, batch: &[Message]) -> Outcomes {
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
pub(crate) async fn failure(transport: &KafkaTransport, message: Message) -> Error {
    publish(transport, &[message]).await.take(0).unwrap().unwrap_err()
}

/// Everything in the topic, partition by partition, as a consumer of the broker reads it.
pub(crate) async fn stored(server: &KafkaServer) -> Result<Vec<OwnedMessage>, BoxError> {
    let brokers = server.address().to_string();
    let messages = tokio::task::spawn_blocking(move || read_all(&brokers)).await?;
    messages.map_err(|error| error.to_string().into())
}

fn read_all(brokers: &str) -> Result<Vec<OwnedMessage>, Box<dyn std::error::Error + Send + Sync>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.message.max.bytes", "8000000")
        .create()?;
    let partitions = 0..i32::try_from(PARTITIONS)?;
    let mut assignment = TopicPartitionList::new();
    for partition in partitions.clone() {
        assignment.add_partition_offset(TOPIC, partition, Offset::Offset(0))?;
    }
    consumer.assign(&assignment)?;
    let mut left: BTreeSet<i32> = partitions.collect();
    let (mut messages, mut last) = (Vec::new(), Instant::now());
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                last = Instant::now();
                messages.push(message.detach());
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
            Some(Err(error)) => return Err(error.into()),
            // This broker gives a batch its place before it stores it; killed in between, it leaves a gap, perhaps at the end.
            None if !messages.is_empty() && last.elapsed() > Duration::from_secs(10) => break,
            None if last.elapsed() > HANGS => return Err("the topic cannot be read to its end".into()),
            None => {}
        }
    }
    messages.sort_by_key(|message| (message.partition(), message.offset()));
    Ok(messages)
}

/// The same as a consumer of the outbox understands it.
pub(crate) async fn received(server: &KafkaServer) -> Result<Vec<Received>, BoxError> {
    stored(server).await?.iter().map(read).collect()
}

/// The payloads in the topic, partition by partition.
pub(crate) async fn payloads(server: &KafkaServer) -> Vec<String> {
    let received = received(server).await.unwrap();
    received.into_iter().map(|received| String::from_utf8(received.payload).unwrap()).collect()
}

fn read(message: &OwnedMessage) -> Result<Received, BoxError> {
    let mut attributes = BTreeMap::new();
    let (mut content_type, mut headers) = (None, Vec::new());
    for header in message.headers().ok_or("no headers")?.iter() {
        let value = String::from_utf8(header.value.ok_or("a header without a value")?.to_vec())?;
        match (header.key, header.key.strip_prefix("ce_")) {
            (_, Some(name)) => drop(attributes.insert(name.to_owned(), value)),
            ("content-type", None) => content_type = Some(value),
            ("traceparent" | "tracestate", None) => {}
            (name, None) => headers.push((name.to_owned(), value)),
        }
    }
    let mut take = |name: &str| attributes.remove(name);
    let id = take("id").ok_or("no id")?.parse()?;
    let topic = take("type").ok_or("no type")?;
    let key = message.key().map(|key| String::from_utf8(key.to_vec())).transpose()?;
    if take("partitionkey") != key || topic != message.topic() {
        return Err("the attributes do not say what the record says".into());
    }
    for name in ["specversion", "source", "time"] {
        take(name).ok_or(name)?;
    }
    headers.extend(attributes);
    headers.sort();
    let payload = message.payload().unwrap_or_default().to_vec();
    Ok(Received { id, topic, key, headers, payload, content_type })
}
