//! A message as NATS carries it.

use crate::NatsConfig;
use crate::error::Operation;
use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pillarbox_core::{CloudEvents, Error, ErrorKind, Message};

/// The header that carries the ordering key.
pub const KEY_HEADER: &str = "Pillarbox-Key";

const CONTENT_TYPE: &str = "Content-Type";
const ID: &str = "Nats-Msg-Id";
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// What the name of a header cannot hold. Everything beyond ASCII is encoded in any case.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS.add(b' ').add(b':').add(b'%');

/// The headers of a message on the wire, and how many bytes they have there.
pub(crate) fn headers(config: &NatsConfig, message: &Message) -> Result<(HeaderMap, usize), Error> {
    let mut headers = Lines { map: HeaderMap::new(), size: "NATS/1.0\r\n\r\n".len() };
    for (name, value) in message.headers().iter() {
        if is_reserved(config, name, message) {
            return Err(rejected(format!(
                "the header {name:?} belongs to NATS or to this transport; rename it"
            )));
        }
        let encoded = utf8_percent_encode(name, NOT_IN_NAMES).to_string();
        headers.add(&encoded, value)?;
    }
    headers.add(ID, &message.id().to_string())?;
    if let Some(key) = message.key() {
        headers.add(KEY_HEADER, key)?;
    }
    if let Some(content_type) = message.content_type() {
        headers.add(CONTENT_TYPE, content_type)?;
    }
    if let Some(stream) = &config.stream {
        headers.add(EXPECTED_STREAM, stream)?;
    }
    if let Some(source) = &config.source {
        for (name, value) in source.attributes(message) {
            headers.add(&format!("{}{name}", CloudEvents::HTTP_PREFIX), &CloudEvents::encoded(&value))?;
        }
    }
    Ok((headers.map, headers.size))
}

/// Names that would mean something to the server, such as `Nats-Rollup`, which deletes what the stream holds, or that would stand
/// there twice.
fn is_reserved(config: &NatsConfig, name: &str, message: &Message) -> bool {
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    begins("Nats-")
        || name.eq_ignore_ascii_case(KEY_HEADER)
        || (config.source.is_some() && begins(CloudEvents::HTTP_PREFIX))
        || (message.content_type().is_some() && name.eq_ignore_ascii_case(CONTENT_TYPE))
}

struct Lines {
    map: HeaderMap,
    size: usize,
}

impl Lines {
    fn add(&mut self, name: &str, value: &str) -> Result<(), Error> {
        // Clients take white space away from the ends.
        if value.trim() != value || value.chars().any(|letter| letter.is_control() && letter != '\t') {
            return Err(rejected(format!(
                "the header {name:?} has white space at an end of its value, or a control character in it, which NATS does not carry"
            )));
        }
        let (Ok(checked), Ok(text)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
            return Err(rejected(format!("NATS does not carry the header {name:?}")));
        };
        self.size += name.len() + ": ".len() + value.len() + "\r\n".len();
        self.map.append(checked, text);
        Ok(())
    }
}

pub(crate) fn rejected(description: String) -> Error {
    Error::new(ErrorKind::Rejected, Operation::Publish.name()).describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageBuilder, MessageId, Timestamp};

    fn config(options: &str) -> NatsConfig {
        NatsConfig::from_url(&format!("nats://broker/?{options}")).unwrap()
    }

    fn message() -> MessageBuilder {
        Message::given(MessageId::from_bytes([0x22; 16]), Timestamp::from_millis(5_900), "orders")
    }

    fn sent(options: &str, message: &Message) -> Vec<String> {
        let (map, _) = headers(&config(options), message).unwrap();
        let mut lines: Vec<_> =
            map.iter().map(|(name, values)| format!("{name}: {}", values[0].as_str())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn everything_travels() {
        let message = message()
            .key("order-1")
            .header("traceparent", "00-1")
            .header("na\u{ef}ve 100%", "\u{1f4ee} 100%")
            .content_type("text/plain")
            .payload("x")
            .unwrap();
        let expected = [
            "Content-Type: text/plain",
            "Nats-Expected-Stream: ORDERS",
            "Nats-Msg-Id: 22222222-2222-2222-2222-222222222222",
            "Pillarbox-Key: order-1",
            "na%C3%AFve%20100%25: \u{1f4ee} 100%",
            "traceparent: 00-1",
        ];
        assert_eq!(sent("transport.stream=ORDERS", &message), expected);
        let (_, size) = headers(&config("transport.stream=ORDERS"), &message).unwrap();
        let lines: usize = expected.iter().map(|line| line.len() + 2).sum();
        assert_eq!(size, lines + "NATS/1.0\r\n\r\n".len());
    }

    #[test]
    fn nothing_is_added() {
        let message = message().payload("").unwrap();
        assert_eq!(sent("", &message), ["Nats-Msg-Id: 22222222-2222-2222-2222-222222222222"]);
    }

    #[test]
    fn what_nats_cannot_carry_is_rejected_by_name() {
        for (name, value) in [
            ("nats-rollup", "all"),
            ("Nats-Expected-Last-Sequence", "0"),
            ("pillarbox-key", "x"),
            ("content-type", "x"),
            ("end", "a "),
            ("begin", "\u{a0}a"),
        ] {
            let message = message().header(name, value).content_type("text/plain").payload("").unwrap();
            let error = headers(&config(""), &message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = headers(&config(""), &message().key(" a").payload("").unwrap()).unwrap_err();
        assert!(error.to_string().contains(KEY_HEADER), "{error}");
        let mut lines = Lines { map: HeaderMap::new(), size: 0 };
        assert!(lines.add("a", "b\r\nNats-Rollup: all").is_err() && lines.add("a", "b\tc").is_ok());
        // Without a content type the header is the producer's.
        assert!(headers(&config(""), &message().header("Content-Type", "x").payload("").unwrap()).is_ok());
    }

    /// The example of the binding to NATS, section 3.1.4 (binary mode, since its version 1.0.3), with an id of ours.
    #[test]
    fn the_example_of_cloudevents() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
            .content_type("application/json")
            .payload("{}")
            .unwrap();
        assert_eq!(
            sent("transport.source=/mycontext/subcontext", &message),
            [
                "Content-Type: application/json",
                "Nats-Msg-Id: 11111111-1111-1111-1111-111111111111",
                "ce-datacontenttype: application/json",
                "ce-id: 11111111-1111-1111-1111-111111111111",
                "ce-source: /mycontext/subcontext",
                "ce-specversion: 1.0",
                "ce-time: 2018-04-05T03:56:24Z",
                "ce-type: com.example.someevent",
            ]
        );
    }

    /// Section 3.1.3.2 of the same.
    #[test]
    fn attributes_are_encoded_and_their_names_are_taken() {
        let encoded = message().header("subject", "Euro \u{20ac} \u{1f600}").payload("").unwrap();
        let lines = sent("transport.source=/orders", &encoded);
        assert!(lines.contains(&"ce-subject: Euro%20%E2%82%AC%20%F0%9F%98%80".to_owned()), "{lines:?}");
        let taken = message().header("CE-id", "x").payload("").unwrap();
        let error = headers(&config("transport.source=/orders"), &taken).unwrap_err();
        assert!(error.kind() == ErrorKind::Rejected && error.to_string().contains("CE-id"), "{error}");
        assert!(headers(&config(""), &taken).is_ok(), "without a source it is the producer's");
    }
}
