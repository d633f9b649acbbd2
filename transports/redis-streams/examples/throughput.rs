//! Measures a relay over the transport beside the client's own pipelined `XADD`, on a server of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-redis-streams --example throughput
//! ```
//!
//! Both add the same fields to the same stream on one connection: see [`Comparison`]. The server keeps its data in memory, so that the
//! clients decide. With few keys the transport sends the messages of a key as transactions, one after the other, which the client's
//! own pipeline does not: it adds what stands behind a message that failed.

use futures_util::future::try_join_all;
use pillarbox_core::Message;
use pillarbox_redis_streams::RedisStreamsTransport;
use pillarbox_testkit::servers::RedisServer;
use pillarbox_testkit::throughput::{BATCH, BoxError, Case, Comparison};
use redis::aio::MultiplexedConnection;

const STREAM: &str = "throughput";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = RedisServer::start()?;
    let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let comparison = Comparison {
        topic: STREAM,
        transport: RedisStreamsTransport::open(&server.url()).await?,
        client: async |batches, messages: &[Message]| with_client(&connection, batches, messages).await,
        clear: async || {
            server.command(&["DEL", STREAM])?;
            Ok(())
        },
        server: server.process().process_id(),
    };
    comparison
        .print(
            "redis-streams",
            &[Case::UNKEYED, Case::keys(10_000), Case::keys(100), Case::keys(10), Case::keys(1)],
        )
        .await
}

/// So many publishers; each takes every n-th batch.
async fn with_client(
    connection: &MultiplexedConnection,
    publishers: usize,
    messages: &[Message],
) -> Result<(), BoxError> {
    try_join_all((0..publishers).map(async |place| {
        let mut connection = connection.clone();
        for batch in messages.chunks(BATCH).skip(place).step_by(publishers) {
            let mut pipeline = redis::Pipeline::with_capacity(batch.len());
            for message in batch {
                add(&mut pipeline, message);
            }
            let added: Vec<String> = pipeline.query_async(&mut connection).await?;
            assert_eq!(added.len(), batch.len());
        }
        Ok::<_, BoxError>(())
    }))
    .await?;
    Ok(())
}

/// The same as the transport sends.
fn add(pipeline: &mut redis::Pipeline, message: &Message) {
    let command = pipeline.cmd("XADD").arg(STREAM).arg("*").arg("id").arg(message.id().to_string());
    command.arg("created_at").arg(message.created_at().as_millis());
    if let Some(key) = message.key() {
        command.arg("key").arg(&**key);
    }
    command.arg("payload").arg(&message.payload()[..]);
}
