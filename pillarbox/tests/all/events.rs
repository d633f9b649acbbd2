//! Events within the transactions of the memory storage.

use futures_executor::block_on;
use pillarbox::events::{
    DirectEventBus, Domain, Event, EventBus, EventPublisher, Handler, HandlerError, Integration, NAME_HEADER,
    OutboxEventBus, PublishError, VERSION_HEADER,
};
use pillarbox::memory::{MemoryStorage, MemoryTransaction};
use pillarbox::{
    Admin as _, Destination, Effect, Error, ErrorKind, Filter, ListState, Listing, Message, Outcomes, Stored,
    Text, TraceContext, Transport, TransportGuarantees,
};
use serde::Serialize;
use std::error::Error as _;
use std::sync::{Arc, Mutex};

#[derive(Serialize)]
struct OrderCreated {
    order: u32,
    total: u32,
}

impl Event for OrderCreated {
    type Route = Integration;
    const TOPIC: &'static str = "orders.created";
    const VERSION: u32 = 2;

    fn key(&self) -> Option<Text> {
        Some(format!("order-{}", self.order).into())
    }
}

#[derive(Serialize)]
struct GoodsReserved {
    order: u32,
}

impl Event for GoodsReserved {
    type Route = Domain;
    const TOPIC: &'static str = "goods.reserved";
}

/// Notes what it hears, and writes it in the event's transaction too.
#[derive(Clone, Default)]
struct Notes {
    name: &'static str,
    heard: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<Vec<u32>>>,
    refuses: bool,
}

impl Handler<GoodsReserved, MemoryTransaction> for Notes {
    async fn handle(
        &self,
        event: &GoodsReserved,
        transaction: &mut MemoryTransaction,
    ) -> Result<(), HandlerError> {
        self.heard.lock().unwrap().push(format!("{} {}", self.name, event.order));
        if self.refuses {
            return Err("the warehouse is closed".into());
        }
        let (written, order) = (self.written.clone(), event.order);
        transaction.stage(move || written.lock().unwrap().push(order));
        Ok(())
    }
}

fn pending(outbox: &MemoryStorage) -> Vec<Stored> {
    let listing = Listing { state: ListState::Pending, filter: Filter::all(), cursor: None, limit: 100 };
    block_on(outbox.list(listing)).unwrap().messages
}

#[test]
fn an_integration_event_is_in_the_outbox_if_its_transaction_commits() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let outbox = MemoryStorage::new();
    let publisher =
        EventPublisher::new(OutboxEventBus::new(outbox.clone())).trace(move || TraceContext::new(trace).ok());

    let mut rolled_back = outbox.transaction();
    block_on(publisher.publish(&mut rolled_back, &OrderCreated { order: 1, total: 5 })).unwrap();
    rolled_back.rollback();
    assert!(pending(&outbox).is_empty());

    let mut transaction = outbox.transaction();
    block_on(publisher.publish(&mut transaction, &OrderCreated { order: 2, total: 12 })).unwrap();
    transaction.commit();
    let stored = pending(&outbox);
    let message = stored[0].message().unwrap();
    assert_eq!((&**message.topic(), message.key().map(|key| &**key)), ("orders.created", Some("order-2")));
    assert_eq!(&message.payload()[..], br#"{"order":2,"total":12}"#);
    assert_eq!(message.content_type().map(|text| &**text), Some("application/json"));
    let header = |name| message.headers().value(name).map(ToString::to_string);
    assert_eq!(header(NAME_HEADER).as_deref(), Some("orders.created"));
    assert_eq!(header(VERSION_HEADER).as_deref(), Some("2"));
    assert_eq!(header("traceparent").as_deref(), Some(trace));
}

#[test]
fn a_domain_event_reaches_its_handlers_in_order_and_in_its_transaction_only() {
    let outbox = MemoryStorage::new();
    let first = Notes { name: "first", ..Notes::default() };
    let second = Notes { name: "second", heard: first.heard.clone(), ..Notes::default() };
    let publisher = EventPublisher::new(OutboxEventBus::new(outbox.clone()))
        .on::<GoodsReserved>(first.clone())
        .on::<GoodsReserved>(second);

    let mut rolled_back = outbox.transaction();
    block_on(publisher.publish(&mut rolled_back, &GoodsReserved { order: 1 })).unwrap();
    rolled_back.rollback();
    let mut transaction = outbox.transaction();
    block_on(publisher.publish(&mut transaction, &GoodsReserved { order: 2 })).unwrap();
    transaction.commit();

    assert_eq!(*first.heard.lock().unwrap(), ["first 1", "second 1", "first 2", "second 2"]);
    assert_eq!(*first.written.lock().unwrap(), [2]);
    assert!(pending(&outbox).is_empty(), "a domain event is never stored");
}

#[test]
fn a_handler_that_fails_fails_the_publish_and_later_ones_do_not_run() {
    let outbox = MemoryStorage::new();
    let refusing = Notes { name: "refusing", refuses: true, ..Notes::default() };
    let later = Notes { name: "later", heard: refusing.heard.clone(), ..Notes::default() };
    let publisher = EventPublisher::new(OutboxEventBus::new(outbox.clone()))
        .on::<GoodsReserved>(refusing.clone())
        .on::<GoodsReserved>(later);
    let mut transaction = outbox.transaction();
    let error = block_on(publisher.publish(&mut transaction, &GoodsReserved { order: 1 })).unwrap_err();
    assert!(matches!(error, PublishError::Handler { event: "goods.reserved", .. }), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "the warehouse is closed");
    assert_eq!(*refusing.heard.lock().unwrap(), ["refusing 1"]);
}

#[test]
fn an_event_that_cannot_be_written_or_is_too_large_is_refused_by_name() {
    #[derive(Serialize)]
    struct Keys(std::collections::BTreeMap<(u32, u32), u32>);
    impl Event for Keys {
        type Route = Integration;
        const TOPIC: &'static str = "keys";
    }
    #[derive(Serialize)]
    struct Nowhere;
    impl Event for Nowhere {
        type Route = Integration;
        const TOPIC: &'static str = "nowhere";
        fn topic(&self) -> Text {
            Text::new()
        }
    }
    let outbox = MemoryStorage::new();
    let publisher = EventPublisher::new(OutboxEventBus::new(outbox.clone()));
    let mut transaction = outbox.transaction();
    let unwritable = Keys([((1, 2), 3)].into());
    let error = block_on(publisher.publish(&mut transaction, &unwritable)).unwrap_err();
    assert!(matches!(error, PublishError::Encode { event: "keys", .. }), "{error}");
    let error = block_on(publisher.publish(&mut transaction, &Nowhere)).unwrap_err();
    assert!(matches!(error, PublishError::Invalid { event: "nowhere", .. }), "{error}");
    transaction.commit();
    assert!(pending(&outbox).is_empty());
}

/// A broker that refuses the topic `refused`, and says nothing about `silent`.
#[derive(Clone, Default)]
struct Broker(Arc<Mutex<Vec<String>>>);

impl Transport for Broker {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for (index, message) in batch.iter().enumerate() {
            match &**message.topic() {
                "refused" => {
                    outcomes.set(index, Err(Error::new(ErrorKind::Rejected, "publish").not_applied()));
                }
                "silent" => {}
                topic => {
                    self.0.lock().unwrap().push(topic.to_owned());
                    outcomes.set(index, Ok(()));
                }
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: false }
    }
}

#[test]
fn the_direct_bus_leaves_a_ghost_when_its_transaction_rolls_back() {
    let (outbox, broker) = (MemoryStorage::new(), Broker::default());
    // Chosen by a deployment: the publisher does not know which bus it has.
    let bus: Box<dyn EventBus<MemoryTransaction>> = Box::new(DirectEventBus::new(broker.clone()));
    let message = |topic: &'static str| Message::to(topic).payload("{}").unwrap();
    let mut transaction = outbox.transaction();
    block_on(bus.publish(&mut transaction, &[message("a"), message("refused"), message("b")])).unwrap_err();
    assert_eq!(*broker.0.lock().unwrap(), ["a"], "it stops at the first failure");
    transaction.rollback();
    let silent = block_on(bus.publish(&mut outbox.transaction(), &[message("silent")])).unwrap_err();
    assert_eq!((silent.kind(), silent.effect()), (ErrorKind::Indeterminate, Effect::Unknown));
}
