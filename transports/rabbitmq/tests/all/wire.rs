//! What stands on the wire, as a consumer in any language sees it.

use crate::support::{Place, QUEUE, all_ok, publish};
use lapin::types::AMQPValue;
use pillarbox_core::{Message, MessageId, Timestamp};
use pillarbox_rabbitmq::KEY_HEADER;

#[tokio::test]
async fn every_property() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let id = MessageId::from_bytes([0x5a; 16]);
    let binary: Vec<u8> = (0..=255).collect();
    let message = Message::given(id, Timestamp::from_millis(1_700_000_000_999), QUEUE)
        .key("order-1")
        .header("traceparent", "00-0af7-b7ad-01")
        .header("empty", "")
        .content_type("application/json")
        .payload(binary.clone())
        .unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let received = &place.take_all().await[0].delivery;
    assert_eq!((received.exchange.as_str(), received.routing_key.as_str()), ("", QUEUE));
    assert_eq!(received.data, binary);
    assert!(!received.redelivered);
    let properties = &received.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    let message_id = properties.message_id().as_ref().unwrap();
    assert_eq!(message_id.as_str(), "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a");
    assert_eq!(*properties.timestamp(), Some(1_700_000_000), "seconds");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    let headers = properties.headers().as_ref().unwrap().inner();
    let text = |text: &str| AMQPValue::LongString(text.into());
    assert_eq!(headers.len(), 3, "{headers:?}");
    assert_eq!(headers.get(KEY_HEADER), Some(&text("order-1")));
    assert_eq!(headers.get("traceparent"), Some(&text("00-0af7-b7ad-01")));
    assert_eq!(headers.get("empty"), Some(&text("")));
    // A message expires only if somebody asked for it, and nobody can.
    assert_eq!(*properties.expiration(), None);
}

/// With a source the attributes stand beside what travels in any case.
#[tokio::test]
async fn a_cloud_event() {
    let place = Place::shared().await;
    let transport = place.transport("transport.source=/mycontext/subcontext").await;
    let created_at = Timestamp::from_millis(1_522_900_584_000);
    let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, QUEUE)
        .key("order-1")
        .content_type("application/json")
        .payload("{}")
        .unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let properties = &place.take_all().await[0].delivery.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    let headers = properties.headers().as_ref().unwrap().inner();
    for (name, value) in [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", "11111111-1111-1111-1111-111111111111"),
        ("cloudEvents:source", "/mycontext/subcontext"),
        ("cloudEvents:type", QUEUE),
        ("cloudEvents:time", "2018-04-05T03:56:24Z"),
        ("cloudEvents:partitionkey", "order-1"),
        (KEY_HEADER, "order-1"),
    ] {
        assert_eq!(headers.get(name), Some(&AMQPValue::LongString(value.into())), "{name}");
    }
    assert_eq!(headers.len(), 7, "{headers:?}");
}

/// What a message does not have is absent, and no empty text stands for it.
#[tokio::test]
async fn nothing_is_added() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let message = Message::to(QUEUE).payload("").unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let received = &place.take_all().await[0].delivery;
    assert!(received.data.is_empty());
    assert_eq!(*received.properties.content_type(), None);
    assert!(received.properties.headers().as_ref().unwrap().inner().is_empty());
}

/// Payloads around the size of a frame, whose bodies are split.
#[tokio::test]
async fn payloads_around_a_frame() {
    let place = Place::shared().await;
    let transport = place.transport("frame_max=4096").await;
    let sizes = [0, 1, 4087, 4088, 4089, 4096, 8176, 8177, 100_000];
    let payload = |size: usize| (0..size).map(|at| at.to_le_bytes()[0]).collect::<Vec<u8>>();
    let batch: Vec<_> =
        sizes.iter().map(|&size| Message::to(QUEUE).payload(payload(size)).unwrap()).collect();
    all_ok(&publish(&transport, &batch).await);
    let received = place.take_all().await;
    assert_eq!(received.len(), sizes.len());
    for (message, size) in received.iter().zip(sizes) {
        assert_eq!(message.delivery.data, payload(size));
    }
}

/// A queue that outlives a node keeps only persistent messages, and a confirm of one waits for the disk.
#[tokio::test]
async fn order_of_a_batch() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let batch: Vec<_> =
        (0..1_000).map(|number| Message::to(QUEUE).payload(format!("{number}")).unwrap()).collect();
    all_ok(&publish(&transport, &batch).await);
    for (number, message) in place.take_all().await.iter().enumerate() {
        assert_eq!(message.delivery.data, format!("{number}").into_bytes());
    }
}
