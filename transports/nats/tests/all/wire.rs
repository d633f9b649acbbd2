//! What stands in the stream, as a consumer in any language sees it.

use crate::support::{TOPIC, all_ok, config, message, publish, server, stored, transport};
use pillarbox_core::{CloudEvents, Message, MessageId, Timestamp};
use pillarbox_nats::NatsTransport;

#[tokio::test]
async fn every_header() {
    let server = server().await;
    let transport = NatsTransport::connect(config(&server).stream("ORDERS")).await.unwrap();
    let binary: Vec<u8> = (0..=255).collect();
    let message =
        Message::given(MessageId::from_bytes([0x5a; 16]), Timestamp::from_millis(1_700_000_000_999), TOPIC)
            .key("order-1")
            .header("traceparent", "00-0af7-b7ad-01")
            .header("empty", "")
            .content_type("application/json")
            .payload(binary.clone())
            .unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let stored = stored(&server).await.unwrap();
    assert_eq!(stored[0].subject.as_str(), TOPIC);
    assert_eq!(stored[0].payload, binary);
    let headers = stored[0].headers.as_ref().unwrap();
    for (name, value) in [
        ("Nats-Msg-Id", "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a"),
        ("Nats-Expected-Stream", "ORDERS"),
        ("Pillarbox-Key", "order-1"),
        ("Content-Type", "application/json"),
        ("traceparent", "00-0af7-b7ad-01"),
        ("empty", ""),
    ] {
        assert_eq!(headers.get(name).unwrap().as_str(), value, "{name}");
    }
    assert_eq!(headers.len(), 6, "{headers:?}");
}

/// With a source the attributes stand beside what travels in any case.
#[tokio::test]
async fn a_cloud_event() {
    let server = server().await;
    let source = CloudEvents::new("/mycontext/subcontext").unwrap();
    let transport = NatsTransport::connect(config(&server).source(source)).await.unwrap();
    let created_at = Timestamp::from_millis(1_522_900_584_000);
    let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, TOPIC)
        .key("order 1")
        .content_type("application/json")
        .payload("{}")
        .unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let stored = stored(&server).await.unwrap();
    let headers = stored[0].headers.as_ref().unwrap();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "11111111-1111-1111-1111-111111111111"),
        ("ce-source", "/mycontext/subcontext"),
        ("ce-type", TOPIC),
        ("ce-time", "2018-04-05T03:56:24Z"),
        ("ce-datacontenttype", "application/json"),
        ("ce-partitionkey", "order%201"),
        ("Content-Type", "application/json"),
        ("Pillarbox-Key", "order 1"),
    ] {
        assert_eq!(headers.get(name).unwrap().as_str(), value, "{name}");
    }
    assert_eq!(headers.len(), 10, "{headers:?}");
}

/// What a message does not have is absent, and no empty text stands for it.
#[tokio::test]
async fn nothing_is_added() {
    let server = server().await;
    let transport = transport(&server).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "")]).await);
    let stored = stored(&server).await.unwrap();
    assert!(stored[0].payload.is_empty());
    assert_eq!(stored[0].headers.as_ref().unwrap().len(), 1);
}

/// A message that is sent again within the stream's window is stored once, and confirmed all the same.
#[tokio::test]
async fn the_stream_drops_what_it_has_seen() {
    let server = server().await;
    let transport = transport(&server).await;
    let batch = [message(TOPIC, None, "a"), message(TOPIC, Some("k"), "b")];
    all_ok(&publish(&transport, &batch).await);
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(stored(&server).await.unwrap().len(), 2);
}
