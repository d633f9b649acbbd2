//! Measures a relay over the transport beside lapin's own pipelined publish with confirms, on a node of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-rabbitmq --example throughput
//! cargo run --release -p pillarbox-rabbitmq --example throughput -- transient
//! ```
//!
//! With a durable queue the broker's disk decides; with a transient one, which keeps messages in memory, the clients do.
//!
//! Both publish the same persistent messages, with the same properties, to the same queue, on one connection: see [`Comparison`]. With
//! few keys a relay sends one message of a key at a time, since the broker's confirms give no prefix per key.

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use pillarbox_core::Message;
use pillarbox_rabbitmq::{KEY_HEADER, RabbitMqTransport};
use pillarbox_testkit::servers::RabbitMqNode;
use pillarbox_testkit::throughput::{BATCH, BATCHES, BoxError, Case, Comparison};

const QUEUE: &str = "throughput";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let node = RabbitMqNode::start()?;
    let connection = Connection::connect(&node.url(), ConnectionProperties::default()).await?;
    let control = connection.create_channel().await?;
    let durable = std::env::args().all(|word| word != "transient");
    let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
    control.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    let mut channels = Vec::new();
    for _ in 0..BATCHES {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channels.push(channel);
    }
    let comparison = Comparison {
        topic: QUEUE,
        transport: RabbitMqTransport::open(&node.url()).await?,
        client: async |batches: usize, messages: &[Message]| {
            with_lapin(&channels[..batches], messages).await?;
            Ok(())
        },
        clear: async || {
            control.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await?;
            Ok(())
        },
        server: node.process().process_id(),
    };
    comparison
        .print(
            "rabbitmq",
            &[Case::UNKEYED, Case::keys(10_000), Case::keys(100), Case::keys(1).messages(BATCH)],
        )
        .await
}

/// Each channel takes every n-th batch.
async fn with_lapin(channels: &[Channel], messages: &[Message]) -> Result<(), lapin::Error> {
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
    Ok(())
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
