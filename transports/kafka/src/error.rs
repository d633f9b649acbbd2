//! What librdkafka's errors and the broker's mean to a relay: one table each.

use pillarbox_core::{Effect, Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Publish,
    Probe,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Publish => "publish",
            Self::Probe => "probe",
        }
    }
}

/// Why a producer is of no use any more. The words are librdkafka's, and hold no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No broker is left.
    Away(String),
    /// It did not answer in time.
    Silent,
    /// The brokers let nobody in who comes like this.
    Refused(String),
    /// The producer and the broker do not agree any more on what was sent.
    Fatal(String),
}

impl Loss {
    pub(crate) fn error(&self, operation: Operation, place: &str) -> Error {
        let (kind, advice, cause) = match self {
            Self::Away(words) => {
                (ErrorKind::Unavailable, "no broker answers; are they running?", Some(words))
            }
            Self::Silent => (ErrorKind::Unavailable, "no answer within `transport.connect_timeout`", None),
            Self::Refused(words) => (
                ErrorKind::Misconfigured,
                "the brokers refuse the connection; look at the user, the password, `transport.sasl`, `transport.tls` and the authorities",
                Some(words),
            ),
            Self::Fatal(words) => {
                (ErrorKind::Unavailable, "the producer had to be given up, and is made anew", Some(words))
            }
        };
        let error = Error::new(kind, operation.name()).describe(format!("Kafka at {place}: {advice}"));
        match cause {
            Some(words) => error.caused_by(words.clone()),
            None => error,
        }
    }
}

/// What an error of a connection, or of the producer as a whole, means; `None` if the others may still do.
pub(crate) fn of_connection(code: Code, words: &str) -> Option<Loss> {
    let words = words.to_owned();
    match code {
        Code::AllBrokersDown => Some(Loss::Away(words)),
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnsupportedFeature => Some(Loss::Refused(words)),
        // What librdkafka calls `SSL` elsewhere, when it meets it while it writes.
        Code::BrokerTransportFailure
            if words.contains("SSL routines") && !words.contains("unexpected eof") =>
        {
            Some(Loss::Refused(words))
        }
        Code::Fatal => Some(Loss::Fatal(words)),
        _ => None,
    }
}

/// The settings of librdkafka itself were refused. Its own words may repeat a value.
pub(crate) fn not_created(failure: &KafkaError) -> Error {
    let error = Error::new(ErrorKind::Misconfigured, Operation::Open.name()).not_applied();
    match failure {
        KafkaError::ClientConfig(_, _, name, _) => error.describe(format!(
            "the setting `{name}` is none of librdkafka's, or its value is none that it takes"
        )),
        // Of files that cannot be read, and of settings that exclude each other.
        KafkaError::ClientCreation(words) => {
            error.describe("librdkafka refuses the settings").caused_by(words.clone())
        }
        _ => error.describe("librdkafka refuses the settings"),
    }
}

/// What the failure of one message means, and in words.
pub(crate) fn of_delivery(code: Code) -> (ErrorKind, &'static str) {
    match code {
        Code::MessageTimedOut => {
            (ErrorKind::Indeterminate, "it was not confirmed within `transport.confirm_timeout`")
        }
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::UnknownPartition => (ErrorKind::Unroutable, "there is no such topic; create it"),
        Code::InvalidTopic => (ErrorKind::Rejected, "the topic has a name that the broker does not take"),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            (ErrorKind::Rejected, "the message is larger than the topic's `max.message.bytes`")
        }
        Code::InvalidRecord | Code::InvalidMessage | Code::PolicyViolation => {
            (ErrorKind::Rejected, "the broker does not take this record; does its topic ask for keys?")
        }
        Code::InvalidTimestamp => (
            ErrorKind::Misconfigured,
            "the clock of this machine is outside of what the topic takes (`message.timestamp.…max.ms`)",
        ),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            (ErrorKind::Misconfigured, "the user may not write there; allow it in the broker's lists")
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            (ErrorKind::Misconfigured, "the broker refuses the user or the password")
        }
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Fatal => (ErrorKind::Unavailable, "the producer was given up"),
        code if is_of_the_producer(code) => {
            (ErrorKind::Unavailable, "the broker has lost what it knew of the producer, which is made anew")
        }
        Code::ThrottlingQuotaExceeded => (ErrorKind::Unavailable, "the quota of this client is used up"),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            (ErrorKind::Unavailable, "too few replicas are in sync")
        }
        Code::LeaderNotAvailable | Code::NotLeaderForPartition | Code::BrokerNotAvailable => {
            (ErrorKind::Unavailable, "the partition has no leader")
        }
        Code::KafkaStorageError => (ErrorKind::Unavailable, "the broker's disk does not take the message"),
        _ => (ErrorKind::Unexpected, "the broker or librdkafka answers something that was not expected"),
    }
}

/// Whether broker and producer do not agree any more: librdkafka does not recover from all of these by itself.
pub(crate) fn is_of_the_producer(code: Code) -> bool {
    matches!(
        code,
        Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::GaplessGuarantee
    )
}

/// Whether a broker says so of a whole request for the sake of one record in it.
pub(crate) fn is_of_one_record(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidMessage
            | Code::PolicyViolation
    )
}

/// Whether what fails like this was never stored, unless an earlier attempt was.
pub(crate) fn is_refusal(code: Code) -> bool {
    let (kind, _) = of_delivery(code);
    matches!(kind, ErrorKind::Rejected | ErrorKind::Unroutable | ErrorKind::Misconfigured)
        || code == Code::ThrottlingQuotaExceeded
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

    #[test]
    fn every_row_of_delivery() {
        use ErrorKind::{Indeterminate, Misconfigured, Rejected, Unavailable, Unexpected, Unroutable};
        for (code, expected, refusal) in [
            (Code::MessageTimedOut, Indeterminate, false),
            (Code::UnknownTopic, Unroutable, true),
            (Code::UnknownTopicOrPartition, Unroutable, true),
            (Code::UnknownTopicId, Unroutable, true),
            (Code::UnknownPartition, Unroutable, true),
            (Code::InvalidTopic, Rejected, true),
            (Code::MessageSizeTooLarge, Rejected, true),
            (Code::MessageBatchTooLarge, Rejected, true),
            (Code::InvalidMessageSize, Rejected, true),
            (Code::InvalidRecord, Rejected, true),
            (Code::InvalidMessage, Rejected, true),
            (Code::PolicyViolation, Rejected, true),
            (Code::InvalidTimestamp, Misconfigured, true),
            (Code::TopicAuthorizationFailed, Misconfigured, true),
            (Code::ClusterAuthorizationFailed, Misconfigured, true),
            (Code::SaslAuthenticationFailed, Misconfigured, true),
            (Code::Authentication, Misconfigured, true),
            (Code::PurgeQueue, Unavailable, false),
            (Code::PurgeInflight, Unavailable, false),
            (Code::BrokerTransportFailure, Unavailable, false),
            (Code::AllBrokersDown, Unavailable, false),
            (Code::Fatal, Unavailable, false),
            (Code::ThrottlingQuotaExceeded, Unavailable, true),
            (Code::NotEnoughReplicas, Unavailable, false),
            (Code::NotEnoughReplicasAfterAppend, Unavailable, false),
            (Code::LeaderNotAvailable, Unavailable, false),
            (Code::NotLeaderForPartition, Unavailable, false),
            (Code::BrokerNotAvailable, Unavailable, false),
            (Code::KafkaStorageError, Unavailable, false),
            (Code::OutOfOrderSequenceNumber, Unavailable, false),
            (Code::UnknownProducerId, Unavailable, false),
            (Code::InvalidProducerEpoch, Unavailable, false),
            (Code::ProducerFenced, Unavailable, false),
            (Code::GaplessGuarantee, Unavailable, false),
            (Code::DuplicateSequenceNumber, Unexpected, false),
            (Code::Unknown, Unexpected, false),
        ] {
            assert_eq!((of_delivery(code).0, is_refusal(code)), (expected, refusal), "{code:?}");
            assert!(!is_of_one_record(code) || expected == Rejected, "{code:?}");
        }
    }

    #[test]
    fn every_row_of_connections() {
        let refused = Some(ErrorKind::Misconfigured);
        for (code, expected) in [
            (Code::AllBrokersDown, Some(ErrorKind::Unavailable)),
            (Code::Fatal, Some(ErrorKind::Unavailable)),
            (Code::Authentication, refused),
            (Code::SaslAuthenticationFailed, refused),
            (Code::UnsupportedSASLMechanism, refused),
            (Code::SSL, refused),
            (Code::ClusterAuthorizationFailed, refused),
            (Code::TransactionalIdAuthorizationFailed, refused),
            (Code::UnsupportedFeature, refused),
            (Code::BrokerTransportFailure, None),
            (Code::Resolve, None),
            (Code::OperationTimedOut, None),
        ] {
            let error = of_connection(code, "said librdkafka").map(|loss| {
                let error = loss.error(Operation::Probe, "broker:9092");
                assert!(
                    error.to_string().contains("broker:9092") && error.report().ends_with("said librdkafka")
                );
                error.kind()
            });
            assert_eq!(error, expected, "{code:?}");
        }
        assert_eq!(Loss::Silent.error(Operation::Open, "x").kind(), ErrorKind::Unavailable);
    }

    /// Depending on where librdkafka is when it meets it, a handshake that fails has one code or the other.
    #[test]
    fn a_handshake_that_fails_while_writing_is_a_refusal() {
        let loss = |words| of_connection(Code::BrokerTransportFailure, words);
        let verify = "ssl://broker:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed";
        assert_eq!(loss(verify), Some(Loss::Refused(verify.to_owned())));
        assert_eq!(loss("error:0A000126:SSL routines::unexpected eof while reading"), None);
        assert_eq!(loss("Connect to ipv4#127.0.0.1:9093 failed: Connection refused"), None);
    }

    #[test]
    fn a_refused_setting_shows_no_value() {
        let mut settings = rdkafka::ClientConfig::new();
        settings.set("sasl.pasword", "s3cret");
        let failure = settings.create::<rdkafka::producer::BaseProducer>().err().unwrap();
        let error = not_created(&failure);
        assert!(error.to_string().contains("`sasl.pasword`"), "{error}");
        assert!(!format!("{error:?}{}", error.report()).contains("s3cret"));
    }
}
