//! Measures a relay over the transport beside the client's own requests, against a server on a thread of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-http --example throughput
//! ```
//!
//! Both post the same bodies with the same headers over connections that stay open, 16 requests at once for each batch on its way: see
//! [`Comparison`]. With few keys one message of a key waits for the answer to the one before: an endpoint that refuses one does not
//! stop the next. Server and clients share the machine.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _};
use pillarbox_core::{CloudEvents, Message};
use pillarbox_http::HttpTransport;
use pillarbox_testkit::throughput::{BATCH, BoxError, Case, Comparison};
use tokio::net::TcpListener;

/// Requests of one publish, the transport's default.
const AT_ONCE: usize = 16;

/// Each message with a signature.
const SIGNED: &str = "&transport.secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve()?;
    let keyed = [Case::UNKEYED, Case::keys(10_000), Case::keys(100), Case::keys(1).messages(BATCH)];
    for (name, options, cases) in [("http", "", &keyed[..]), ("http-signed", SIGNED, &[Case::UNKEYED])] {
        let transport = HttpTransport::open(&format!("{url}?transport.allow_private=true{options}")).await?;
        // After the transport, which has chosen the provider of cryptography for both.
        let client = reqwest::Client::builder().no_proxy().build()?;
        let comparison = Comparison {
            topic: "throughput",
            transport,
            client: async |batches, messages: &[Message]| with_client(&client, &url, batches, messages).await,
            clear: async || Ok(()),
            // It is part of this process.
            server: None,
        };
        comparison.print(name, cases).await?;
    }
    Ok(())
}

/// Takes everything.
fn serve() -> Result<String, BoxError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}/in", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let routes = Router::new().fallback(|_: Bytes| async { StatusCode::NO_CONTENT });
            axum::serve(TcpListener::from_std(listener)?, routes).await
        })
    });
    Ok(url)
}

/// So many publishers; each takes every n-th batch.
async fn with_client(
    client: &reqwest::Client,
    url: &str,
    publishers: usize,
    messages: &[Message],
) -> Result<(), BoxError> {
    let source = &CloudEvents::new("/pillarbox")?;
    try_join_all((0..publishers).map(async |place| {
        for batch in messages.chunks(BATCH).skip(place).step_by(publishers) {
            let sending = stream::iter(batch).for_each_concurrent(AT_ONCE, |message| async move {
                let mut request = client.post(url);
                for (name, value) in source.attributes(message) {
                    request = request.header(format!("ce-{name}"), &*value);
                }
                let answer = request.body(message.payload().clone()).send().await;
                assert!(answer.is_ok_and(|answer| answer.status().is_success()));
            });
            sending.await;
        }
        Ok::<_, BoxError>(())
    }))
    .await?;
    Ok(())
}
