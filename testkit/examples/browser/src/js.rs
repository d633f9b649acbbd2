//! A relay in JavaScript's own event loop, as an application with wasm-bindgen would run it. The broker is JavaScript.
#![allow(unsafe_code, missing_docs, reason = "wasm-bindgen's macro writes some")]

use pillarbox::memory::MemoryStorage;
use pillarbox::{
    Backoff, BrowserTimer, Destination, Error, ErrorKind, Message, Outcomes, Relay, RelayConfig,
    Storage as _, Transport, TransportGuarantees,
};
use send_wrapper::SendWrapper;
use std::time::Duration;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_futures::js_sys::{Function, Promise};

/// Relays `count` messages of two keys: `publish` is called with each payload, and answers a promise. Once `all` is kept the
/// relay stops, and the outbox has to be empty.
#[wasm_bindgen]
pub async fn relay(count: u32, publish: Function, all: Promise) -> Result<(), String> {
    let outbox = MemoryStorage::new();
    let messages: Result<Vec<Message>, _> = (0..count)
        .map(|number| {
            Message::to("orders")
                .key(if number % 2 == 0 { "even" } else { "odd" })
                .payload(number.to_string())
        })
        .collect();
    outbox.enqueue_alone(&messages.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    let config = RelayConfig::default()
        .batch_size(3)
        .polling_interval(Duration::from_millis(20))
        .retry(Backoff::new(Duration::from_millis(5), Duration::from_millis(20)));
    let relay = Relay::new(outbox.clone(), Broker(SendWrapper::new(publish)), config)
        .map_err(|error| error.to_string())?;
    let all = SendWrapper::new(JsFuture::from(all));
    relay
        .timer(BrowserTimer::new())
        .run(async {
            // How it ended is the caller's own business.
            let _ended = all.await;
        })
        .await
        .map_err(|error| error.to_string())?;
    let admin = outbox.admin().ok_or("the outbox cannot be asked")?;
    let left = admin.stats().await.map_err(|error| error.to_string())?;
    if left.pending + left.scheduled + left.claimed + left.dead != 0 {
        return Err(format!("the outbox is not empty: {left:?}"));
    }
    Ok(())
}

/// A function of JavaScript. It belongs to its thread, as the relay in a page does, so the wrapper never panics.
struct Broker(SendWrapper<Function>);

impl Broker {
    /// The promise of one message, or what the function threw.
    fn send(&self, message: &Message) -> Result<JsFuture, JsValue> {
        let payload = JsValue::from_str(&String::from_utf8_lossy(message.payload()));
        self.0.call1(&JsValue::NULL, &payload).map(|promise| JsFuture::from(Promise::resolve(&promise)))
    }
}

impl Transport for Broker {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for (index, message) in batch.iter().enumerate() {
            let answered = match self.send(message).map(SendWrapper::new) {
                Ok(promise) => promise.await.is_ok(),
                Err(_) => false,
            };
            let refused = || Error::new(ErrorKind::Unroutable, "publish").not_applied();
            outcomes.set(index, if answered { Ok(()) } else { Err(refused()) });
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: false }
    }
}
