//! Measures the transport beside the client's own pipelined publish to JetStream, on a server of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-nats --example throughput
//! cargo run --release -p pillarbox-nats --example throughput -- file
//! ```
//!
//! With a stream in files the server's disk decides; in memory, the default here, the clients do.
//!
//! Both publish the same messages with the same headers to the same stream, in batches on one connection, and wait for the
//! acknowledgements of one batch before the next one. Rounds alternate, and the median counts. With few keys the transport waits for
//! each message of a key before the next one, which the client's own publish does not.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use futures_util::future::{join_all, try_join_all};
use pillarbox_core::{Message, Outcomes, Transport as _};
use pillarbox_nats::{KEY_HEADER, NatsTransport};
use pillarbox_testkit::servers::NatsServer;
use std::error::Error;
use std::time::Instant;

const SUBJECT: &str = "throughput";
const MESSAGES: usize = 10_000;
const BATCH: usize = 500;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = NatsServer::start()?;
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    let in_files = std::env::args().nth(1).is_some_and(|word| word == "file");
    let stream = context
        .create_stream(stream::Config {
            name: "THROUGHPUT".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: if in_files { stream::StorageType::File } else { stream::StorageType::Memory },
            ..stream::Config::default()
        })
        .await?;
    let transport = NatsTransport::open(&server.url()).await?;
    println!("case          publishes at once  client/s    ours/s   ratio");
    for (case, keys) in [("unkeyed", 0), ("10,000 keys", 10_000), ("100 keys", 100), ("1 key", 1)] {
        for publishes in [1, 4] {
            let (mut floors, mut ours) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let floor = with_client(&context, publishes, &make(keys)?).await?;
                stream.purge().await?;
                let own = with_transport(&transport, publishes, &make(keys)?).await?;
                stream.purge().await?;
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

/// New messages, with ids that the stream has not seen.
fn make(keys: usize) -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |number: usize| {
        let message = Message::to(SUBJECT);
        let message = if keys == 0 { message } else { message.key(format!("key-{}", number % keys)) };
        message.payload(vec![b'x'; PAYLOAD])
    };
    Ok((0..MESSAGES).map(message).collect::<Result<_, _>>()?)
}

/// Each publisher takes every n-th batch. Gives messages per second.
async fn with_client(
    context: &jetstream::Context,
    publishes: usize,
    messages: &[Message],
) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    try_join_all((0..publishes).map(async |place| {
        for batch in messages.chunks(BATCH).skip(place).step_by(publishes) {
            let sent = try_join_all(batch.iter().map(|message| {
                context.publish_with_headers(SUBJECT, headers(message), message.payload().clone())
            }));
            try_join_all(sent.await?.into_iter().map(IntoFuture::into_future)).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    }))
    .await?;
    Ok(per_second(messages.len(), began))
}

/// The same as the transport sends.
fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", message.id().to_string());
    if let Some(key) = message.key() {
        headers.insert(KEY_HEADER, &**key);
    }
    headers
}

async fn with_transport(
    transport: &NatsTransport,
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
