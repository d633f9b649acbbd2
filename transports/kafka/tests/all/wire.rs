//! What stands in the topic, as a consumer in any language sees it.

use crate::support::{TOPIC, all_ok, config, connect, message, publish, server, stored, transport};
use pillarbox_core::{CloudEvents, Message, MessageId, Timestamp};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};

fn headers(message: &OwnedMessage) -> Vec<(&str, &str)> {
    let headers = message.headers().unwrap().iter();
    headers.map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap())).collect()
}

#[tokio::test]
async fn every_header() {
    let server = server();
    let source = CloudEvents::new("/orders").unwrap();
    let transport = connect(config(&server).source(source)).await;
    let binary: Vec<u8> = (0..=255).collect();
    let message =
        Message::given(MessageId::from_bytes([0x5a; 16]), Timestamp::from_millis(1_700_000_000_999), TOPIC)
            .key("order-1")
            .header("traceparent", "00-0af7-b7ad-01")
            .header("X-Empty", "")
            .content_type("application/json")
            .payload(binary.clone())
            .unwrap();
    all_ok(&publish(&transport, &[message]).await);
    let stored = stored(&server).await.unwrap();
    assert_eq!(stored[0].payload(), Some(&binary[..]));
    assert_eq!(stored[0].key(), Some(&b"order-1"[..]));
    assert_eq!(
        headers(&stored[0]),
        [
            ("ce_specversion", "1.0"),
            ("ce_id", "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a"),
            ("ce_source", "/orders"),
            ("ce_type", TOPIC),
            ("content-type", "application/json"),
            ("ce_time", "2023-11-14T22:13:20.999Z"),
            ("ce_partitionkey", "order-1"),
            ("ce_traceparent", "00-0af7-b7ad-01"),
            ("traceparent", "00-0af7-b7ad-01"),
            ("X-Empty", ""),
        ]
    );
    // The time of the send: a topic's retention must not count from a creation long ago.
    assert!(stored[0].timestamp().to_millis().is_none_or(|time| time > 1_700_000_000_999));
}

/// What a message does not have is absent, and no empty text stands for it.
#[tokio::test]
async fn nothing_is_added() {
    let server = server();
    let transport = transport(&server).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "")]).await);
    let stored = stored(&server).await.unwrap();
    assert_eq!((stored[0].key(), stored[0].payload().unwrap_or_default()), (None, &b""[..]));
    assert_eq!(headers(&stored[0]).len(), 5);
}

/// The vectors of Kafka's own tests of its hash.
#[tokio::test]
async fn a_key_lies_where_kafka_s_own_clients_put_it() {
    let server = server();
    let transport = transport(&server).await;
    let hashes: [(&str, i32); 5] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ];
    let batch: Vec<_> = hashes.iter().map(|(key, _)| message(TOPIC, Some(key), key)).collect();
    all_ok(&publish(&transport, &batch).await);
    let stored = stored(&server).await.unwrap();
    for (key, hash) in hashes {
        let found = stored.iter().find(|message| message.key() == Some(key.as_bytes())).unwrap();
        assert_eq!(found.partition(), (hash & i32::MAX) % 4, "{key}");
    }
}
