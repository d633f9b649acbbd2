//! Which messages are sent, and what the reports mean.

use crate::KafkaConfig;
use crate::error::{self, Operation};
use crate::properties::rejected;
use pillarbox_core::{Error, ErrorKind, Message};
use rdkafka::error::RDKafkaErrorCode;

/// The longest name of a topic.
const TOPIC: usize = 249;

/// Kafka's own topics.
const INTERNAL: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// Whether a text is a name that a topic can have.
pub(crate) fn is_topic(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC).contains(&text.len()) && text.bytes().all(is_letter) && text != "." && text != ".."
}

/// Whether Kafka can take a message, as far as is known here.
pub(crate) fn check(config: &KafkaConfig, message: &Message) -> Result<(), Error> {
    let topic: &str = message.topic();
    if !is_topic(topic) {
        return Err(rejected(format!(
            "the topic {topic:?} is no name of a topic in Kafka: it has up to {TOPIC} of `a` to `z`, `A` to `Z`, `0` to `9`, `.`, `_` and `-`"
        )));
    }
    if INTERNAL.contains(&topic) {
        return Err(rejected(format!("the topic {topic:?} belongs to Kafka itself")));
    }
    let (size, limit) = (message.payload().len(), config.max_payload);
    if size > limit as usize {
        return Err(rejected(format!(
            "the payload has {size} bytes and the limit is {limit} (`transport.max_payload`)"
        )));
    }
    Ok(())
}

/// librdkafka did not even take the message.
pub(crate) fn not_taken(config: &KafkaConfig, message: &Message, code: RDKafkaErrorCode) -> Error {
    told(config, message, code, error::of_delivery(code)).not_applied()
}

/// A message was taken and failed. `unsettled` says that a connection failed since the publish began, so that an earlier attempt
/// may have been stored, or the confirmation been lost.
pub(crate) fn failed(
    config: &KafkaConfig,
    message: &Message,
    code: RDKafkaErrorCode,
    unsettled: bool,
) -> Error {
    let (kind, advice) = error::of_delivery(code);
    let kind = if unsettled && kind == ErrorKind::Indeterminate { ErrorKind::Unavailable } else { kind };
    let error = told(config, message, code, (kind, advice));
    if error::is_refusal(code) && !unsettled { error.not_applied() } else { error }
}

fn told(
    config: &KafkaConfig,
    message: &Message,
    code: RDKafkaErrorCode,
    (kind, advice): (ErrorKind, &str),
) -> Error {
    let (topic, place): (&str, _) = (message.topic(), config.place());
    Error::new(kind, Operation::Publish.name())
        .describe(format!("Kafka at {place}, topic {topic:?}: {advice}"))
        .caused_by(code)
}

/// No report came at all.
pub(crate) fn unreported(config: &KafkaConfig) -> Error {
    Error::new(ErrorKind::Indeterminate, Operation::Publish.name()).describe(format!(
        "Kafka at {}: it was not confirmed within {:?} (`transport.confirm_timeout`)",
        config.place(),
        config.confirm_timeout
    ))
}

/// Messages behind one of their key that failed: they were not sent, and share its kind.
pub(crate) fn behind(error: &Error) -> Error {
    Error::new(error.kind(), error.operation())
        .describe(format!("not sent, since one before it with its key failed: {}", error.description()))
        .not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{Effect, MessageId, Timestamp};

    fn config() -> KafkaConfig {
        KafkaConfig::from_url("kafka://ann:s3cret@broker?transport.max_payload=5").unwrap()
    }

    fn message(topic: &str) -> Message {
        Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, topic.to_owned())
            .payload("12345")
            .unwrap()
    }

    #[test]
    fn topics() {
        for topic in ["a", "orders.created", "A-1_b", &"x".repeat(249)] {
            assert!(check(&config(), &message(topic)).is_ok(), "{topic}");
        }
        for topic in [".", "..", "a b", "b\u{fc}cher", "a/b", "__consumer_offsets", &"x".repeat(250)] {
            let error = check(&config(), &message(topic)).unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{topic}");
        }
        assert!(!is_topic(""));
    }

    #[test]
    fn sizes() {
        let large = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "a").payload("123456");
        let error = check(&config(), &large.unwrap()).unwrap_err();
        assert!(error.to_string().contains("has 6 bytes and the limit is 5"), "{error}");
    }

    #[test]
    fn failures() {
        use RDKafkaErrorCode as Code;
        for (code, unsettled, kind, effect) in [
            (Code::MessageTimedOut, false, ErrorKind::Indeterminate, Effect::Unknown),
            (Code::MessageTimedOut, true, ErrorKind::Unavailable, Effect::Unknown),
            (Code::UnknownTopic, false, ErrorKind::Unroutable, Effect::NotApplied),
            (Code::UnknownTopic, true, ErrorKind::Unroutable, Effect::Unknown),
            (Code::TopicAuthorizationFailed, false, ErrorKind::Misconfigured, Effect::NotApplied),
            (Code::PurgeQueue, false, ErrorKind::Unavailable, Effect::Unknown),
            (Code::OutOfOrderSequenceNumber, false, ErrorKind::Unavailable, Effect::Unknown),
        ] {
            let error = failed(&config(), &message("orders"), code, unsettled);
            assert_eq!((error.kind(), error.effect()), (kind, effect), "{error}");
            assert!(error.to_string().contains("ann@broker:9092, topic \"orders\""), "{error}");
            assert!(!error.report().contains("s3cret"));
            let behind = behind(&error);
            assert_eq!((behind.kind(), behind.effect()), (kind, Effect::NotApplied));
        }
        let error = not_taken(&config(), &message("orders"), Code::UnknownTopic);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unroutable, Effect::NotApplied));
        assert_eq!(unreported(&config()).kind(), ErrorKind::Indeterminate);
    }
}
