//! Measures the transport beside the client's own requests, against a server on a thread of its own.
//!
//! ```text
//! cargo run --release -p pillarbox-http --example throughput
//! ```
//!
//! Both post the same bodies with the same number of headers, 16 at once over connections that stay open. Rounds alternate, and the
//! median counts. Server and clients share the machine.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt as _};
use pillarbox_core::{Message, Outcomes, Transport as _};
use pillarbox_http::HttpTransport;
use std::error::Error;
use std::time::Instant;
use tokio::net::TcpListener;

const MESSAGES: usize = 5_000;
const BATCH: usize = 500;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 7;
const AT_ONCE: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = serve()?;
    let transport = HttpTransport::open(&format!("{url}?transport.allow_private=true")).await?;
    let signed = "transport.secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signing = HttpTransport::open(&format!("{url}?transport.allow_private=true&{signed}")).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let messages: Vec<_> = (0..MESSAGES)
        .map(|_| Message::to("throughput").payload(vec![b'x'; PAYLOAD]))
        .collect::<Result<_, _>>()?;
    println!("case      client/s    ours/s   ratio");
    for (case, transport) in [("plain", &transport), ("signed", &signing)] {
        let (mut floors, mut ours) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let floor = per_second(with_client(&client, &url, &messages).await);
            let own = per_second(with_transport(transport, &messages).await);
            // The first round warms up.
            if round > 0 {
                floors.push(floor);
                ours.push(own);
            }
        }
        let (floor, own) = (median(floors), median(ours));
        println!("{case:<8} {floor:>9.0} {own:>9.0} {:>7.2}", own / floor);
    }
    Ok(())
}

/// Takes everything.
fn serve() -> Result<String, Box<dyn Error>> {
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

async fn with_client(client: &reqwest::Client, url: &str, messages: &[Message]) -> Instant {
    let began = Instant::now();
    for batch in messages.chunks(BATCH) {
        let sending = stream::iter(batch).for_each_concurrent(AT_ONCE, |message| async {
            let request = client
                .post(url)
                .header("ce-specversion", "1.0")
                .header("ce-id", message.id().to_string())
                .header("ce-source", "/pillarbox")
                .header("ce-type", "throughput")
                .header("ce-time", "2018-04-05T03:56:24Z")
                .body(message.payload().clone());
            let answer = request.send().await;
            assert!(answer.is_ok_and(|answer| answer.status().is_success()));
        });
        sending.await;
    }
    began
}

async fn with_transport(transport: &HttpTransport, messages: &[Message]) -> Instant {
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
