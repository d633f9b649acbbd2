//! Measures the transport beside the client's own pipelined `XADD`, on a server of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-redis-streams --example throughput
//! ```
//!
//! Both add the same fields to the same stream, in batches on one connection, and wait for the answers of one batch before the
//! next one. Rounds alternate, and the median counts. The server keeps its data in memory, so that the clients decide.

use pillarbox_core::{Message, Outcomes, Transport as _};
use pillarbox_redis_streams::RedisStreamsTransport;
use pillarbox_testkit::servers::RedisServer;
use redis::aio::MultiplexedConnection;
use std::error::Error;
use std::time::Instant;

const STREAM: &str = "throughput";
const MESSAGES: usize = 20_000;
const BATCH: usize = 500;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = RedisServer::start()?;
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let transport = RedisStreamsTransport::open(&server.url()).await?;
    println!("case          client/s    ours/s   ratio");
    for (case, keys) in [("unkeyed", 0), ("10,000 keys", 10_000), ("10 keys", 10), ("1 key", 1)] {
        let messages = messages(keys)?;
        let (mut floors, mut ours) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let floor = per_second(with_client(&mut connection, &messages).await?);
            server.command(&["DEL", STREAM])?;
            let own = per_second(with_transport(&transport, &messages).await);
            server.command(&["DEL", STREAM])?;
            // The first round warms up.
            if round > 0 {
                floors.push(floor);
                ours.push(own);
            }
        }
        let (floor, own) = (median(floors), median(ours));
        println!("{case:<12} {floor:>9.0} {own:>9.0} {:>7.2}", own / floor);
    }
    Ok(())
}

fn messages(keys: usize) -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |number: usize| {
        let message = Message::to(STREAM);
        let message = if keys == 0 { message } else { message.key(format!("key-{}", number % keys)) };
        message.payload(vec![b'x'; PAYLOAD])
    };
    Ok((0..MESSAGES).map(message).collect::<Result<_, _>>()?)
}

async fn with_client(
    connection: &mut MultiplexedConnection,
    messages: &[Message],
) -> Result<Instant, redis::RedisError> {
    let began = Instant::now();
    for batch in messages.chunks(BATCH) {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len());
        for message in batch {
            let command = pipeline.cmd("XADD").arg(STREAM).arg("*").arg("id").arg(message.id().to_string());
            command.arg("created_at").arg(message.created_at().as_millis());
            if let Some(key) = message.key() {
                command.arg("key").arg(&**key);
            }
            command.arg("payload").arg(&message.payload()[..]);
        }
        let added: Vec<String> = pipeline.query_async(connection).await?;
        assert_eq!(added.len(), batch.len());
    }
    Ok(began)
}

async fn with_transport(transport: &RedisStreamsTransport, messages: &[Message]) -> Instant {
    let began = Instant::now();
    let mut outcomes = Outcomes::new();
    for batch in messages.chunks(BATCH) {
        outcomes.reset(batch.len());
        transport.publish(batch, &mut outcomes).await;
        assert!((0..batch.len()).all(|index| matches!(outcomes.outcome(index), Some(Ok(())))));
    }
    began
}

#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn per_second(began: Instant) -> f64 {
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
