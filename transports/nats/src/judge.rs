//! Which messages are sent, and what the answers mean.

use crate::NatsConfig;
use crate::connection::NoAnswer;
use crate::error::{self, Operation, Refusal};
use crate::properties::rejected;
use pillarbox_core::{Effect, Error, ErrorKind, Message};
use serde::Deserialize;

/// Whether a text is a subject that one can publish to: tokens between dots, none of them empty or a wildcard, without white space
/// and control characters.
pub(crate) fn is_subject(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token != "*"
            && token != ">"
            && !token.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    };
    text.split('.').all(is_token)
}

/// Whether the server can take a message, as far as is known here. `headers` is what they measure on the wire.
pub(crate) fn check(
    message: &Message,
    headers: usize,
    max_payload: u32,
    max_message: u32,
) -> Result<(), Error> {
    let topic: &str = message.topic();
    if !is_subject(topic) {
        return Err(rejected(format!(
            "the topic {topic:?} is no NATS subject: tokens between dots, none empty or a wildcard, without white space"
        )));
    }
    if topic.starts_with('$') || topic.starts_with("_INBOX.") {
        return Err(rejected(format!("the topic {topic:?} belongs to NATS itself")));
    }
    let size = message.payload().len();
    if size > max_payload as usize {
        return Err(rejected(format!(
            "the payload has {size} bytes and the limit is {max_payload}: `transport.max_payload`, or the server's `max_payload` less the headers"
        )));
    }
    if size + headers > max_message as usize {
        return Err(rejected(format!(
            "the message has {} bytes with its headers; the server's `max_payload` is {max_message}",
            size + headers
        )));
    }
    Ok(())
}

/// A stream's acknowledgement, or its refusal.
#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    stream: Option<String>,
    seq: Option<u64>,
}

/// The answer to a message that was published.
pub(crate) fn acknowledged(config: &NatsConfig, answer: &[u8]) -> Result<(), Error> {
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(refusal), .. }) => {
            Err(error::refused(&refusal, Operation::Publish, &config.place()))
        }
        Ok(Answer { stream: Some(_), seq: Some(_), .. }) => Ok(()),
        _ => Err(Error::new(ErrorKind::Unexpected, Operation::Publish.name()).describe(format!(
            "NATS at {}: the answer is no acknowledgement of a stream; does a service listen on the topic?",
            config.place()
        ))),
    }
}

/// The answer to a question about JetStream.
pub(crate) fn answered(config: &NatsConfig, operation: Operation, answer: &[u8]) -> Result<(), Error> {
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(refusal), .. }) => Err(error::refused(&refusal, operation, &config.place())),
        _ => Ok(()),
    }
}

/// No answer came to a message that was published.
pub(crate) fn unanswered(config: &NatsConfig, message: &Message, reason: &NoAnswer) -> Error {
    let (topic, place): (&str, _) = (message.topic(), config.place());
    let told = |kind, words: &str| {
        Error::new(kind, Operation::Publish.name()).describe(format!("NATS at {place}: {words}"))
    };
    match reason {
        NoAnswer::NotSent => {
            told(ErrorKind::Unavailable, "the connection was lost before the message was sent").not_applied()
        }
        NoAnswer::Lost => {
            told(ErrorKind::Unavailable, "the connection was lost before the acknowledgement came")
        }
        NoAnswer::TimedOut => told(
            ErrorKind::Indeterminate,
            &format!(
                "no acknowledgement within {:?} (`transport.confirm_timeout`); does a stream listen on {topic:?}?",
                config.confirm_timeout
            ),
        ),
        NoAnswer::NoResponders => told(
            ErrorKind::Unroutable,
            &format!("no stream listens on {topic:?}; create one with this subject"),
        )
        .not_applied(),
        NoAnswer::Denied => told(
            ErrorKind::Unroutable,
            &format!("the user may not publish to {topic:?}; allow it in the server's permissions"),
        )
        .not_applied(),
    }
}

/// Messages behind one of their key that failed: they were not sent, and share its kind.
pub(crate) fn behind(error: &Error) -> Error {
    Error::new(error.kind(), error.operation())
        .describe(format!("not sent, since one before it with its key failed: {}", error.description()))
        .not_applied()
}

/// The same error for another message.
pub(crate) fn repeated(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.operation());
    let told = match std::error::Error::source(error) {
        Some(cause) => told.describe(format!("{}: {cause}", error.description())),
        None => told.describe(error.description().to_owned()),
    };
    if error.effect() == Effect::NotApplied { told.not_applied() } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    fn config() -> NatsConfig {
        NatsConfig::from_url("nats://ann:s3cret@broker").unwrap()
    }

    fn message(topic: &str) -> Message {
        Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, topic.to_owned())
            .payload("12345")
            .unwrap()
    }

    #[test]
    fn subjects() {
        for topic in ["a", "orders.created", "b\u{fc}cher.neu", "a.*b", "a>b.c"] {
            assert!(check(&message(topic), 0, 10, 100).is_ok(), "{topic}");
        }
        for topic in
            [".", "a.", ".a", "a..b", "*", "a.*", "a.>", "a b", "$JS.API.STREAM.DELETE.X", "_INBOX.x"]
        {
            let error = check(&message(topic), 0, 10, 100).unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{topic}");
        }
    }

    #[test]
    fn what_would_break_the_protocol_is_no_subject() {
        for text in ["", "a\tb", "a\r\nPUB x 0", "a\u{a0}b", "a\0"] {
            assert!(!is_subject(text), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        assert!(check(&message("a"), 95, 5, 100).is_ok());
        assert!(check(&message("a"), 0, 4, 100).unwrap_err().to_string().contains("transport.max_payload"));
        assert!(
            check(&message("a"), 96, 5, 100)
                .unwrap_err()
                .to_string()
                .contains("has 101 bytes with its headers")
        );
    }

    #[test]
    fn answers() {
        assert!(acknowledged(&config(), br#"{"stream":"ORDERS","seq":1}"#).is_ok());
        assert!(acknowledged(&config(), br#"{"stream":"ORDERS","seq":1,"duplicate":true}"#).is_ok());
        for (answer, expected) in [
            (&br#"{"error":{"code":404,"err_code":10059,"description":"x"}}"#[..], ErrorKind::Unroutable),
            (br#"{"error":{"code":400},"stream":"ORDERS","seq":0}"#, ErrorKind::Unexpected),
            (br#"{"stream":"ORDERS"}"#, ErrorKind::Unexpected),
            (b"pong", ErrorKind::Unexpected),
            (b"", ErrorKind::Unexpected),
        ] {
            assert_eq!(acknowledged(&config(), answer).unwrap_err().kind(), expected);
        }
    }

    #[test]
    fn what_is_not_answered() {
        for (reason, kind, effect) in [
            (NoAnswer::NotSent, ErrorKind::Unavailable, Effect::NotApplied),
            (NoAnswer::Lost, ErrorKind::Unavailable, Effect::Unknown),
            (NoAnswer::TimedOut, ErrorKind::Indeterminate, Effect::Unknown),
            (NoAnswer::NoResponders, ErrorKind::Unroutable, Effect::NotApplied),
            (NoAnswer::Denied, ErrorKind::Unroutable, Effect::NotApplied),
        ] {
            let error = unanswered(&config(), &message("orders"), &reason);
            assert_eq!((error.kind(), error.effect()), (kind, effect), "{error}");
            assert!(error.to_string().contains("ann@broker:4222") && !error.to_string().contains("s3cret"));
            let behind = behind(&error);
            assert_eq!((behind.kind(), behind.effect()), (kind, Effect::NotApplied));
        }
    }
}
