//! Measures the transport beside lapin's own pipelined publish with confirms, on a node of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-rabbitmq --example throughput
//! cargo run --release -p pillarbox-rabbitmq --example throughput -- transient
//! ```
//!
//! With a durable queue the broker's disk decides; with a transient one, which keeps messages in memory, the clients do.
//!
//! Both publish the same persistent messages, with the same properties, to the same queue, in batches on one connection,
//! and wait for the confirms of one batch before the next one. Rounds alternate, and the median counts.

use futures_util::future::{join_all, try_join_all};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use pillarbox_core::{Message, Outcomes, Transport as _};
use pillarbox_rabbitmq::{KEY_HEADER, RabbitMqTransport};
use pillarbox_testkit::servers::RabbitMqNode;
use std::error::Error;
use std::time::Instant;

const QUEUE: &str = "throughput";
const MESSAGES: usize = 10_000;
const BATCH: usize = 500;
const PAYLOAD: usize = 256;
const KEYS: usize = 10_000;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = RabbitMqNode::start()?;
    let connection = Connection::connect(&node.url(), ConnectionProperties::default()).await?;
    let control = connection.create_channel().await?;
    let durable = std::env::args().nth(1).is_none_or(|word| word != "transient");
    let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
    control.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    let transport = RabbitMqTransport::open(&node.url()).await?;
    println!("case          publishes at once   lapin/s    ours/s   ratio");
    for (case, keys) in [("unkeyed", 0), ("10,000 keys", KEYS)] {
        let messages = messages(keys)?;
        for publishes in [1, 4] {
            let mut channels = Vec::new();
            for _ in 0..publishes {
                let channel = connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channels.push(channel);
            }
            let (mut floors, mut ours) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let floor = per_second(with_lapin(&channels, &messages).await?);
                control.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await?;
                let own = per_second(with_transport(&transport, publishes, &messages).await?);
                control.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await?;
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

fn messages(keys: usize) -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |number: usize| {
        let message = Message::to(QUEUE);
        let message = if keys == 0 { message } else { message.key(format!("key-{}", number % keys)) };
        message.payload(vec![b'x'; PAYLOAD])
    };
    Ok((0..MESSAGES).map(message).collect::<Result<_, _>>()?)
}

/// Each channel takes every n-th batch.
async fn with_lapin(channels: &[Channel], messages: &[Message]) -> Result<Instant, lapin::Error> {
    let began = Instant::now();
    try_join_all(channels.iter().enumerate().map(async |(place, channel)| {
        for batch in messages.chunks(BATCH).skip(place).step_by(channels.len()) {
            let written = try_join_all(batch.iter().map(|message| {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let payload = message.payload();
                channel.basic_publish("".into(), QUEUE.into(), options, payload, properties(message))
            }));
            for confirmation in try_join_all(written.await?).await? {
                assert!(confirmation.is_ack(), "{confirmation:?}");
            }
        }
        Ok::<_, lapin::Error>(())
    }))
    .await?;
    Ok(began)
}

async fn with_transport(
    transport: &RabbitMqTransport,
    publishes: usize,
    messages: &[Message],
) -> Result<Instant, Box<dyn Error>> {
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
    Ok(began)
}

/// The same as the transport sends.
fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(key) = message.key() {
        headers.insert(KEY_HEADER.into(), AMQPValue::LongString((&**key).into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(message.id().to_string().into())
        .with_timestamp(u64::try_from(message.created_at().as_millis() / 1_000).unwrap_or(0))
        .with_headers(headers)
}

fn per_second(began: Instant) -> f64 {
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
