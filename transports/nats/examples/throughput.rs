//! Measures a relay over the transport beside the client's own pipelined publish to JetStream, on a server of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-nats --example throughput
//! cargo run --release -p pillarbox-nats --example throughput -- file
//! ```
//!
//! With a stream in files the server's disk decides; in memory, the default here, the clients do.
//!
//! Both publish the same messages with the same headers to the same stream on one connection: see [`Comparison`]. With few keys the
//! transport waits for each message of a key before the next one, which the client's own publish does not: a stream acknowledges
//! each message for itself, and one that it refuses does not stop those behind it.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use futures_util::future::try_join_all;
use pillarbox_core::Message;
use pillarbox_nats::{KEY_HEADER, NatsTransport};
use pillarbox_testkit::servers::NatsServer;
use pillarbox_testkit::throughput::{BATCH, BoxError, Case, Comparison};

const SUBJECT: &str = "throughput";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = NatsServer::start()?;
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    let in_files = std::env::args().any(|word| word == "file");
    let stream = context
        .create_stream(stream::Config {
            name: "THROUGHPUT".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: if in_files { stream::StorageType::File } else { stream::StorageType::Memory },
            ..stream::Config::default()
        })
        .await?;
    let comparison = Comparison {
        topic: SUBJECT,
        transport: NatsTransport::open(&server.url()).await?,
        client: async |batches, messages: &[Message]| with_client(&context, batches, messages).await,
        clear: async || {
            stream.purge().await?;
            Ok(())
        },
        server: server.process().process_id(),
    };
    comparison
        .print("nats", &[Case::UNKEYED, Case::keys(10_000), Case::keys(100), Case::keys(1).messages(BATCH)])
        .await
}

/// So many publishers; each takes every n-th batch.
async fn with_client(
    context: &jetstream::Context,
    publishers: usize,
    messages: &[Message],
) -> Result<(), BoxError> {
    try_join_all((0..publishers).map(async |place| {
        for batch in messages.chunks(BATCH).skip(place).step_by(publishers) {
            let sent = try_join_all(batch.iter().map(|message| {
                context.publish_with_headers(SUBJECT, headers(message), message.payload().clone())
            }));
            try_join_all(sent.await?.into_iter().map(IntoFuture::into_future)).await?;
        }
        Ok::<_, BoxError>(())
    }))
    .await?;
    Ok(())
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
