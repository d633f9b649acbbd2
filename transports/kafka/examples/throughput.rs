//! Measures a relay over the transport beside the client's own pipelined publish, on a broker of its own that keeps everything in memory.
//!
//! ```text
//! cargo run --release -p pillarbox-kafka --example throughput
//! ```
//!
//! Both publish the same messages with the same headers by idempotent producers with the same settings, to the same topic: see
//! [`Comparison`]. With few keys the transport waits for each message of a key before the next one, which the client's own publish does
//! not: a producer has what stands behind a refused record accepted.

use futures_util::future::try_join_all;
use pillarbox_core::{CloudEvents, Message};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::KafkaServer;
use pillarbox_testkit::throughput::{BATCH, BoxError, Case, Comparison};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

const TOPIC: &str = "throughput";
const PARTITIONS: u32 = 6;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = KafkaServer::options().in_memory().start()?;
    server.create_topic(TOPIC, PARTITIONS)?;
    let client: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", server.address().to_string())
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .create()?;
    let comparison = Comparison {
        topic: TOPIC,
        transport: KafkaTransport::open(&server.url()).await?,
        client: async |batches, messages: &[Message]| with_client(&client, batches, messages).await,
        // The topic grows; a publish costs the same.
        clear: async || Ok(()),
        server: server.process().process_id(),
    };
    comparison
        .print("kafka", &[Case::UNKEYED, Case::keys(10_000), Case::keys(100), Case::keys(1).messages(BATCH)])
        .await
}

/// So many publishers; each takes every n-th batch.
async fn with_client(
    client: &FutureProducer,
    publishers: usize,
    messages: &[Message],
) -> Result<(), BoxError> {
    let source = CloudEvents::new("/pillarbox")?;
    try_join_all((0..publishers).map(async |place| {
        for batch in messages.chunks(BATCH).skip(place).step_by(publishers) {
            let mut reports = Vec::with_capacity(batch.len());
            for message in batch {
                let record = FutureRecord::to(TOPIC)
                    .payload(&message.payload()[..])
                    .headers(headers(&source, message));
                let record = match message.key() {
                    Some(key) => record.key((**key).as_bytes()),
                    None => record,
                };
                reports.push(client.send_result(record).map_err(|(error, _)| error)?);
            }
            for report in try_join_all(reports).await? {
                report.map_err(|(error, _)| error)?;
            }
        }
        Ok::<_, BoxError>(())
    }))
    .await?;
    Ok(())
}

/// The same as the transport sends.
fn headers(source: &CloudEvents, message: &Message) -> OwnedHeaders {
    let attributes = source.attributes(message);
    attributes.iter().fold(OwnedHeaders::new_with_capacity(8), |headers, (name, value)| {
        headers.insert(Header { key: &format!("ce_{name}"), value: Some(&**value) })
    })
}
