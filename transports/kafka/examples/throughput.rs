//! Measures the transport beside the client's own pipelined publish, on a broker of its own that keeps everything in memory.
//!
//! ```text
//! cargo run --release -p pillarbox-kafka --example throughput
//! ```
//!
//! Both publish the same messages with the same headers by idempotent producers with the same settings, to the same topic, in batches,
//! and wait for the delivery reports of one batch before the next one. Rounds alternate, and the median counts. With few keys the
//! transport waits for each message of a key before the next one, which the client's own publish does not.

use futures_util::future::{join_all, try_join_all};
use pillarbox_core::{CloudEvents, Message, Outcomes, Transport as _};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::KafkaServer;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::error::Error;
use std::time::Instant;

const TOPIC: &str = "throughput";
const PARTITIONS: u32 = 6;
const MESSAGES: usize = 10_000;
const BATCH: usize = 500;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = KafkaServer::options().in_memory().start()?;
    server.create_topic(TOPIC, PARTITIONS)?;
    let transport = KafkaTransport::open(&server.url()).await?;
    let client: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", server.address().to_string())
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .create()?;
    println!("case          publishes at once  client/s    ours/s   ratio");
    for (case, keys, messages) in [
        ("unkeyed", 0, MESSAGES),
        ("10,000 keys", 10_000, MESSAGES),
        ("100 keys", 100, MESSAGES),
        ("1 key", 1, BATCH),
    ] {
        let messages = make(keys, messages)?;
        for publishes in [1, 4] {
            if publishes > messages.len().div_ceil(BATCH) {
                continue;
            }
            let (mut floors, mut ours) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let floor = with_client(&client, publishes, &messages).await?;
                let own = with_transport(&transport, publishes, &messages).await?;
                // The first round warms up.
                if round > 0 {
                    floors.push(floor);
                    ours.push(own);
                }
            }
            let (floor, own) = (median(floors), median(ours));
            println!("{case:<13} {publishes:>17} {floor:>9.0} {own:>9.0} {:>7.2}", own / floor);
        }
    }
    Ok(())
}

fn make(keys: usize, count: usize) -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |number: usize| {
        let message = Message::to(TOPIC);
        let message = if keys == 0 { message } else { message.key(format!("key-{}", number % keys)) };
        message.payload(vec![b'x'; PAYLOAD])
    };
    Ok((0..count).map(message).collect::<Result<_, _>>()?)
}

/// Each publisher takes every n-th batch. Gives messages per second.
async fn with_client(
    client: &FutureProducer,
    publishes: usize,
    messages: &[Message],
) -> Result<f64, Box<dyn Error>> {
    let source = CloudEvents::new("/pillarbox")?;
    let began = Instant::now();
    try_join_all((0..publishes).map(async |place| {
        for batch in messages.chunks(BATCH).skip(place).step_by(publishes) {
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
        Ok::<_, Box<dyn Error>>(())
    }))
    .await?;
    Ok(per_second(messages.len(), began))
}

/// The same as the transport sends.
fn headers(source: &CloudEvents, message: &Message) -> OwnedHeaders {
    let attributes = source.attributes(message);
    attributes.iter().fold(OwnedHeaders::new_with_capacity(8), |headers, (name, value)| {
        headers.insert(Header { key: &format!("ce_{name}"), value: Some(&**value) })
    })
}

async fn with_transport(
    transport: &KafkaTransport,
    publishes: usize,
    messages: &[Message],
) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let complete = join_all((0..publishes).map(async |place| {
        let mut outcomes = Outcomes::new();
        for batch in messages.chunks(BATCH).skip(place).step_by(publishes) {
            outcomes.reset(batch.len());
            transport.publish(batch, &mut outcomes).await;
            if !(0..batch.len()).all(|index| matches!(outcomes.outcome(index), Some(Ok(())))) {
                return false;
            }
        }
        true
    }))
    .await;
    if complete.contains(&false) {
        return Err("a message was not confirmed".into());
    }
    Ok(per_second(messages.len(), began))
}

#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
