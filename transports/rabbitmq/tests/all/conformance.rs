//! The testkit's suite, with a virtual host per test and outages by a proxy.

use crate::support::{Place, QUEUE};
use pillarbox_core::{MessageId, Text};
use pillarbox_rabbitmq::{KEY_HEADER, RabbitMqConfig, RabbitMqTransport};
use pillarbox_testkit::servers::Proxy;
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::cell::RefCell;
use std::time::Duration;

struct Harness {
    place: Place,
    proxy: Proxy,
    received: RefCell<Vec<Received>>,
}

impl Harness {
    async fn new() -> Self {
        let place = Place::shared().await;
        let proxy = place.proxy();
        Self { place, proxy, received: RefCell::default() }
    }
}

impl TransportHarness for Harness {
    type Transport = RabbitMqTransport;

    fn abilities(&self) -> Abilities {
        Abilities { prefix_per_key: false, ..Abilities::ALL }
    }

    fn topic(&self) -> Text {
        QUEUE.into()
    }

    async fn connect(&self) -> Result<RabbitMqTransport, BoxError> {
        let config = RabbitMqConfig::from_url(&self.proxy.through(&self.place.url()))?;
        Ok(RabbitMqTransport::connect(config.max_payload(1024 * 1024)).await?)
    }

    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        for message in self.place.take_all().await {
            let message = received(&message.delivery)?;
            self.received.borrow_mut().push(message);
        }
        Ok(self.received.borrow().clone())
    }

    async fn unroutable_topic(&self) -> Result<Text, BoxError> {
        Ok("orders.nobody-listens".into())
    }

    async fn stop(&self) -> Result<(), BoxError> {
        self.proxy.refuse();
        Ok(())
    }

    async fn start(&self) -> Result<(), BoxError> {
        Ok(self.proxy.heal()?)
    }

    async fn moment(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn received(delivery: &lapin::message::Delivery) -> Result<Received, BoxError> {
    let properties = &delivery.properties;
    let id: MessageId = properties.message_id().as_ref().ok_or("no message id")?.as_str().parse()?;
    let mut headers = Vec::new();
    let mut key = None;
    for (name, value) in properties.headers().as_ref().ok_or("no headers")?.inner() {
        let value = value.as_long_string().ok_or("a header is no text")?.as_bytes().to_vec();
        let value = String::from_utf8(value)?;
        if name.as_str() == KEY_HEADER {
            key = Some(value);
        } else {
            headers.push((name.to_string(), value));
        }
    }
    headers.sort();
    Ok(Received {
        id,
        topic: delivery.routing_key.to_string(),
        key,
        headers,
        payload: delivery.data.clone(),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
    })
}

mod suite {
    use super::Harness;
    pillarbox_testkit::transport_suite!(#[tokio::test] async harness = Harness::new().await);
}
