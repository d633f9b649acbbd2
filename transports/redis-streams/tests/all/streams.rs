//! What ends up in the streams.

use crate::support::{config, failure, message, payloads, publish, received, server, transport};
use pillarbox_core::{CloudEvents, Effect, ErrorKind, Message, MessageId, Timestamp};
use pillarbox_redis_streams::RedisStreamsTransport;

#[tokio::test]
async fn an_entry_has_the_documented_fields() {
    let server = server();
    let transport = transport(&server).await;
    let message = Message::given(
        MessageId::from_bytes([0x22; 16]),
        Timestamp::from_millis(1_700_000_000_123),
        "orders",
    )
    .key("order-1")
    .header("traceparent", "00-1")
    .content_type("text/plain")
    .payload("hello")
    .unwrap();
    assert!(publish(&transport, &[message]).await.outcome(0).unwrap().is_ok());
    let entry = server.command(&["XRANGE", "orders", "-", "+"]).unwrap();
    let fields: Vec<_> = entry.lines().skip(1).collect();
    let expected = [
        ("id", "22222222-2222-2222-2222-222222222222"),
        ("created_at", "1700000000123"),
        ("key", "order-1"),
        ("content_type", "text/plain"),
        ("header.traceparent", "00-1"),
        ("payload", "hello"),
    ];
    let expected: Vec<_> = expected.iter().flat_map(|(name, value)| [*name, *value]).collect();
    assert_eq!(fields, expected);
}

/// With a source the attributes stand beside the documented fields, also where a script adds the entry.
#[tokio::test]
async fn a_cloud_event() {
    let server = server();
    let source = CloudEvents::new("/mycontext/subcontext").unwrap();
    let transport = RedisStreamsTransport::connect(config(&server).source(source)).await.unwrap();
    let message = |topic: &str| {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, topic.to_owned());
        message.key("order 1").payload("{}").unwrap()
    };
    let outcomes = publish(&transport, &[message("orders"), message("invoices")]).await;
    assert!(outcomes.outcome(0).unwrap().is_ok() && outcomes.outcome(1).unwrap().is_ok());
    for stream in ["orders", "invoices"] {
        let entry = server.command(&["XRANGE", stream, "-", "+"]).unwrap();
        let fields: Vec<_> = entry.lines().skip(1).collect();
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", "11111111-1111-1111-1111-111111111111"),
            ("ce_source", "/mycontext/subcontext"),
            ("ce_type", stream),
            ("ce_time", "2018-04-05T03:56:24Z"),
            ("ce_partitionkey", "order 1"),
        ];
        let expected: Vec<_> = attributes.iter().flat_map(|(name, value)| [*name, *value]).collect();
        assert_eq!(fields[6..18], expected);
        assert_eq!(fields[18..], ["payload", "{}"]);
    }
}

#[tokio::test]
async fn a_key_stops_at_its_first_failure_and_no_other_does() {
    let server = server();
    server.command(&["SET", "taken", "no stream"]).unwrap();
    let transport = transport(&server).await;
    let batch = [
        message("orders", Some("a"), "a1"),
        message("orders", Some("b"), "b1"),
        message("taken", Some("a"), "a2"),
        message("orders", Some("b"), "b2"),
        message("orders", Some("a"), "a3"),
        message("orders", None, "free"),
    ];
    let outcomes = publish(&transport, &batch).await;
    let kinds: Vec<_> = (0..batch.len())
        .map(|index| outcomes.outcome(index).unwrap().as_ref().err().map(pillarbox_core::Error::kind))
        .collect();
    let unroutable = Some(ErrorKind::Unroutable);
    assert_eq!(kinds, [None, None, unroutable, None, unroutable, None]);
    let behind = outcomes.outcome(4).unwrap().as_ref().unwrap_err();
    assert!(behind.to_string().contains("one before it with its key failed"), "{behind}");
    assert_eq!(behind.effect(), Effect::NotApplied);
    let mut arrived = payloads(&server, "orders").await;
    assert_eq!(arrived.iter().filter(|payload| payload.starts_with('b')).count(), 2);
    arrived.sort();
    assert_eq!(arrived, ["a1", "b1", "b2", "free"]);
}

#[tokio::test]
async fn a_key_that_needs_several_requests_stops_in_the_middle_too() {
    let server = server();
    server.command(&["SET", "taken", "no stream"]).unwrap();
    let transport = transport(&server).await;
    let topic = |number| if number == 300 { "taken" } else { "orders" };
    let batch: Vec<_> =
        (0..600).map(|number| message(topic(number), Some("a"), &number.to_string())).collect();
    let outcomes = publish(&transport, &batch).await;
    for index in 0..600 {
        assert_eq!(outcomes.outcome(index).unwrap().is_ok(), index < 300, "{index}");
    }
    let expected: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&server, "orders").await, expected);
}

#[tokio::test]
async fn a_payload_above_the_limit_stops_its_key() {
    let server = server();
    let transport = RedisStreamsTransport::connect(config(&server).max_payload(3)).await.unwrap();
    let batch = ["a", "b", "long", "c"].map(|payload| message("orders", Some("key"), payload));
    let outcomes = publish(&transport, &batch).await;
    assert!(outcomes.outcome(0).unwrap().is_ok() && outcomes.outcome(1).unwrap().is_ok());
    let rejected = outcomes.outcome(2).unwrap().as_ref().unwrap_err();
    assert!(rejected.to_string().contains("`transport.max_payload` is 3"), "{rejected}");
    assert!(outcomes.outcome(3).unwrap().is_err());
    assert_eq!(payloads(&server, "orders").await, ["a", "b"]);
}

#[tokio::test]
async fn a_stream_that_shall_not_be_made_is_unroutable_until_it_is_there() {
    let server = server();
    let transport = RedisStreamsTransport::connect(config(&server).create(false)).await.unwrap();
    let error = failure(&transport, message("orders", None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unroutable, Effect::NotApplied));
    assert!(error.to_string().contains("transport.create"), "{error}");
    let keyed = ["a", "b"].map(|payload| message("orders", Some("key"), payload));
    let outcomes = publish(&transport, &keyed).await;
    assert_eq!(outcomes.outcome(0).unwrap().as_ref().unwrap_err().kind(), ErrorKind::Unroutable);
    assert_eq!(server.command(&["EXISTS", "orders"]).unwrap(), "0");
    server.command(&["XGROUP", "CREATE", "orders", "readers", "$", "MKSTREAM"]).unwrap();
    let outcomes = publish(&transport, &keyed).await;
    assert!(outcomes.outcome(0).unwrap().is_ok() && outcomes.outcome(1).unwrap().is_ok());
}

#[tokio::test]
async fn streams_are_trimmed_only_when_asked() {
    let server = server();
    let batch: Vec<_> = (0..3_000).map(|number| message("orders", None, &number.to_string())).collect();
    publish(&transport(&server).await, &batch).await;
    assert_eq!(server.command(&["XLEN", "orders"]).unwrap(), "3000");
    let trimming = RedisStreamsTransport::connect(config(&server).max_length(500)).await.unwrap();
    assert!(publish(&trimming, &batch[..1]).await.outcome(0).unwrap().is_ok());
    let left: usize = server.command(&["XLEN", "orders"]).unwrap().parse().unwrap();
    assert!((500..1_000).contains(&left), "{left}");
    assert_eq!(received(&server, "orders").await.unwrap().last().unwrap().payload, b"0");
}
