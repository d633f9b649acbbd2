//! Drains a queue of mq-bridge in MongoDB, `consume: consumer`: it claims batches by a token, and deletes them when they are
//! acknowledged. A program of its own, since mq-bridge asks for a driver without the feature `bson-3`, which Pillarbox's asks for.
//!
//! Arguments are the URL, the collection, how many messages, how many at once, and the bytes of a payload. What it prints is
//! how many seconds the drain took.

use mq_bridge::CanonicalMessage;
use mq_bridge::endpoints::mongodb::{MongoDbConsumer, MongoDbPublisher};
use mq_bridge::models::{MongoConsume, MongoDbConfig};
use mq_bridge::traits::{MessageConsumer as _, MessageDisposition, MessagePublisher as _};
use std::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, collection, messages, batch, payload] = &arguments[..] else {
        return Err("usage: URL COLLECTION MESSAGES BATCH PAYLOAD".into());
    };
    let (messages, batch, payload): (usize, usize, usize) =
        (messages.parse()?, batch.parse()?, payload.parse()?);
    let config = MongoDbConfig {
        url: url.clone(),
        database: "bench".to_owned(),
        collection: Some(collection.clone()),
        consume: Some(MongoConsume::Consumer),
        ..MongoDbConfig::default()
    };
    let publisher = MongoDbPublisher::new(&config).await?;
    for first in (0..messages).step_by(batch) {
        let count = batch.min(messages - first);
        let batch = (0..count).map(|_| CanonicalMessage::new(vec![b'x'; payload], None)).collect();
        publisher.send_batch(batch).await?;
    }
    let mut consumer = MongoDbConsumer::new(&config).await?;
    let (begun, mut drained) = (Instant::now(), 0);
    while drained < messages {
        let received = consumer.receive_batch(batch).await?;
        let count = received.messages.len();
        (received.commit)(vec![MessageDisposition::Ack; count]).await?;
        drained += count;
    }
    println!("{}", begun.elapsed().as_secs_f64());
    Ok(())
}
