//! A relay in JavaScript's own event loop, as an application with wasm-bindgen would run it.
#![allow(unsafe_code, missing_docs, reason = "wasm-bindgen's macro writes some")]

use futures_util::future::poll_fn;
use pillarbox::memory::MemoryStorage;
use pillarbox::{
    Backoff, BrowserTimer, Destination, Error, ErrorKind, Message, Outcomes, Relay, RelayConfig,
    Storage as _, Transport, TransportGuarantees,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use wasm_bindgen::prelude::wasm_bindgen;

/// Relays `count` messages of two keys, every fifth of which finds no queue at first, and answers the payloads in the order
/// in which the broker took them.
#[wasm_bindgen]
pub async fn relay(count: u32) -> Result<Vec<String>, String> {
    let outbox = MemoryStorage::new();
    let messages: Result<Vec<Message>, _> = (0..count)
        .map(|number| {
            Message::to("orders")
                .key(if number % 2 == 0 { "even" } else { "odd" })
                .payload(number.to_string())
        })
        .collect();
    outbox.enqueue_alone(&messages.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    let broker = Broker::default();
    let config = RelayConfig::default()
        .batch_size(3)
        .polling_interval(Duration::from_millis(20))
        .retry(Backoff::new(Duration::from_millis(5), Duration::from_millis(20)));
    let relay = Relay::new(outbox.clone(), broker.clone(), config).map_err(|error| error.to_string())?;
    relay
        .timer(BrowserTimer::new())
        .run(broker.clone().has(count as usize))
        .await
        .map_err(|error| error.to_string())?;
    if let Some(admin) = outbox.admin() {
        let left = admin.stats().await.map_err(|error| error.to_string())?;
        if left.pending + left.scheduled + left.claimed + left.dead != 0 {
            return Err(format!("the outbox is not empty: {left:?}"));
        }
    }
    let taken = broker.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(taken.payloads.clone())
}

#[derive(Clone, Default)]
struct Broker(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    payloads: Vec<String>,
    refused: Vec<String>,
    waker: Option<Waker>,
}

impl Broker {
    /// Completes once it has taken `count` messages.
    async fn has(self, count: usize) {
        poll_fn(|context| {
            let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if taken.payloads.len() >= count {
                return Poll::Ready(());
            }
            taken.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Transport for Broker {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, message) in batch.iter().enumerate() {
            let payload = String::from_utf8_lossy(message.payload()).into_owned();
            let finds_no_queue = payload.parse::<u32>().is_ok_and(|number| number.is_multiple_of(5));
            if finds_no_queue && !taken.refused.contains(&payload) {
                taken.refused.push(payload);
                outcomes.set(index, Err(Error::new(ErrorKind::Unroutable, "publish").not_applied()));
            } else {
                taken.payloads.push(payload);
                outcomes.set(index, Ok(()));
            }
        }
        if let Some(waker) = taken.waker.take() {
            waker.wake();
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: false }
    }
}
