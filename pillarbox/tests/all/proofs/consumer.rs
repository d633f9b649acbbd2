//! A consumer of RabbitMQ that survives the broker.

use super::Collector;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use std::time::Duration;

/// Declares a durable queue and consumes it until the future is dropped; reconnects whenever the broker is away.
pub(super) async fn consume(url: String, queue: &'static str, collector: Collector) {
    loop {
        if let Err(error) = consume_once(&url, queue, &collector).await {
            println!("consumer: {error}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn consume_once(url: &str, queue: &str, collector: &Collector) -> Result<(), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), "proof".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let id = delivery.properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
        let headers = delivery.properties.headers().as_ref();
        let key = headers.and_then(|headers| match headers.inner().get(pillarbox::rabbitmq::KEY_HEADER)? {
            AMQPValue::LongString(key) => Some(key.to_string()),
            _ => None,
        });
        collector.deliver(id, key.as_deref(), &delivery.data);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
