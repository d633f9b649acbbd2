//! A message as a record of Kafka.

use crate::KafkaConfig;
use pillarbox_core::{CloudEvents, Error, ErrorKind, Message};
use rdkafka::message::{Header, OwnedHeaders};

/// The name that the binding of CloudEvents gives it.
const CONTENT_TYPE: &str = "content-type";

/// The headers of a record, and how many bytes they have.
pub(crate) fn headers(config: &KafkaConfig, message: &Message) -> Result<(OwnedHeaders, usize), Error> {
    let mut size = 0;
    let mut headers = OwnedHeaders::new_with_capacity(8 + message.headers().len());
    let mut add = |headers: OwnedHeaders, name: &str, value: &str| {
        size += name.len() + value.len();
        headers.insert(Header { key: name, value: Some(value) })
    };
    let mut prefixed = String::from(CloudEvents::KAFKA_PREFIX);
    for (name, value) in config.source.attributes(message) {
        if name == "datacontenttype" {
            headers = add(headers, CONTENT_TYPE, &value);
            continue;
        }
        prefixed.truncate(CloudEvents::KAFKA_PREFIX.len());
        prefixed.push_str(name);
        headers = add(headers, &prefixed, &value);
        // Where tracing of Kafka itself looks for them.
        if matches!(name, "traceparent" | "tracestate") {
            headers = add(headers, name, &value);
        }
    }
    for (name, value) in CloudEvents::other_headers(message) {
        if is_reserved(name) {
            return Err(rejected(format!("the header {name:?} belongs to CloudEvents in Kafka; rename it")));
        }
        headers = add(headers, name, value);
    }
    Ok((headers, size))
}

/// Names that would stand there twice, or be taken for an attribute.
fn is_reserved(name: &str) -> bool {
    let begins = name.get(..CloudEvents::KAFKA_PREFIX.len());
    name.eq_ignore_ascii_case(CONTENT_TYPE)
        || begins.is_some_and(|begin| begin.eq_ignore_ascii_case(CloudEvents::KAFKA_PREFIX))
}

pub(crate) fn rejected(description: String) -> Error {
    Error::new(ErrorKind::Rejected, "publish").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageBuilder, MessageId, Timestamp};
    use rdkafka::message::Headers as _;

    fn message() -> MessageBuilder {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        Message::given(MessageId::from_bytes([0x22; 16]), created_at, "orders")
    }

    fn sent(message: &Message) -> Vec<String> {
        let config = KafkaConfig::from_url("kafka://broker?transport.source=/orders").unwrap();
        let (headers, size) = headers(&config, message).unwrap();
        let text = |header: Header<'_, &[u8]>| {
            (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap())
        };
        let pairs: Vec<_> = headers.iter().map(text).collect();
        assert_eq!(size, pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
        pairs.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    /// As the binding to Kafka says.
    #[test]
    fn everything_travels() {
        let message = message()
            .key("order-1")
            .header("traceparent", "00-1")
            .header("X-Tenant", "\u{1f4ee} acme")
            .header("subject", "orders/1")
            .content_type("text/plain")
            .payload("x")
            .unwrap();
        assert_eq!(
            sent(&message),
            [
                "ce_specversion: 1.0",
                "ce_id: 22222222-2222-2222-2222-222222222222",
                "ce_source: /orders",
                "ce_type: orders",
                "content-type: text/plain",
                "ce_time: 2018-04-05T03:56:24Z",
                "ce_partitionkey: order-1",
                "ce_subject: orders/1",
                "ce_traceparent: 00-1",
                "traceparent: 00-1",
                "X-Tenant: \u{1f4ee} acme",
            ]
        );
    }

    /// The example of the binding, section 3.2.5, with an id and a key of ours.
    #[test]
    fn the_example_of_cloudevents() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
            .content_type("application/avro")
            .payload("")
            .unwrap();
        let config = KafkaConfig::from_url("kafka://broker?transport.source=/mycontext/subcontext").unwrap();
        let (headers, _) = headers(&config, &message).unwrap();
        let mut sent: Vec<_> = headers.iter().map(|header| (header.key, header.value.unwrap())).collect();
        sent.sort_unstable();
        assert_eq!(
            sent,
            [
                ("ce_id", &b"11111111-1111-1111-1111-111111111111"[..]),
                ("ce_source", b"/mycontext/subcontext"),
                ("ce_specversion", b"1.0"),
                ("ce_time", b"2018-04-05T03:56:24Z"),
                ("ce_type", b"com.example.someevent"),
                ("content-type", b"application/avro"),
            ]
        );
    }

    #[test]
    fn names_that_would_be_taken_for_attributes_are_rejected() {
        let config = KafkaConfig::from_url("kafka://broker").unwrap();
        for name in ["ce_id", "CE_x", "content-type", "Content-Type"] {
            let message = message().header(name, "x").payload("").unwrap();
            let error = headers(&config, &message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
