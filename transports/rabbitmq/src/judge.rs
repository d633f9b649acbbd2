//! What becomes of a message, in the relay's terms.

use crate::RabbitMqConfig;
use crate::connection::Live;
use crate::error::{Operation, classify};
use lapin::message::BasicReturnMessage;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use pillarbox_core::{CloudEvents, Error, ErrorKind, Message};

/// Beyond its text, a header costs its lengths and its type, and properties and frame cost about this.
const PER_HEADER: usize = 6;
const PER_MESSAGE: usize = 512;

/// The broker closes the channel over these, with all that is in flight beside the message.
const RESERVED: [&str; 2] = ["CC", "BCC"];

/// Whether the broker can take a message, as far as is known here.
pub(crate) fn check(config: &RabbitMqConfig, live: &Live, message: &Message) -> Result<(), Error> {
    let size = message.payload().len();
    if size > config.max_payload as usize {
        return Err(rejected(format!(
            "the payload has {size} bytes; `transport.max_payload` is {}",
            config.max_payload
        )));
    }
    let headers = message.headers();
    if let Some(name) = RESERVED.into_iter().find(|name| headers.value(name).is_some()) {
        return Err(rejected(format!(
            "the header `{name}` is reserved: RabbitMQ takes it for a list of further queues and refuses a text; rename it"
        )));
    }
    let key = message.key().map_or(0, |key| key.len());
    let frame = PER_MESSAGE + key + headers.size() + headers.len() * PER_HEADER + attributes(config, message);
    if frame > live.frame_max() {
        return Err(rejected(format!(
            "the headers need a frame of {frame} bytes, and {} were negotiated; raise `frame_max`, here or in the broker",
            live.frame_max()
        )));
    }
    Ok(())
}

/// What the attributes of a CloudEvent need.
fn attributes(config: &RabbitMqConfig, message: &Message) -> usize {
    let attributes = config.source.iter().flat_map(|source| source.attributes(message));
    let size =
        |name: &str, value: &str| CloudEvents::AMQP_PREFIX.len() + name.len() + value.len() + PER_HEADER;
    attributes.map(|(name, value)| size(name, &value)).sum()
}

/// The broker returned it.
pub(crate) fn unroutable(returned: &BasicReturnMessage) -> Error {
    let (exchange, topic) = (&returned.delivery.exchange, &returned.delivery.routing_key);
    Error::new(ErrorKind::Unroutable, Operation::Publish.name())
        .describe(format!(
            "the exchange {:?} has no queue for the topic {:?} ({}); bind one",
            exchange.as_str(),
            topic.as_str(),
            returned.reply_text.as_str()
        ))
        .not_applied()
}

/// The broker said no: a queue is full and refuses (`x-overflow: reject-publish`), or broke down. Both pass, so the relay pauses
/// and charges nothing. Where an exchange leads to several queues, some may have taken it: they see it again.
pub(crate) fn refused(config: &RabbitMqConfig) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Publish.name())
        .describe(format!(
            "RabbitMQ at {} refuses the message; is a queue full, with `x-overflow` set to `reject-publish`?",
            config.address()
        ))
        .not_applied()
}

pub(crate) fn not_in_confirm_mode() -> Error {
    Error::new(ErrorKind::Unexpected, Operation::Publish.name())
        .describe("the channel is not in confirm mode")
}

/// The same error for another message, with an effect that is unknown unless said otherwise.
pub(crate) fn repeated(error: &Error) -> Error {
    Error::new(error.kind(), error.operation()).describe(error.description().to_owned())
}

/// A relay that must not start without its exchange is told so as a setting.
pub(crate) fn missing_at_the_start(error: Error) -> Error {
    if error.kind() != ErrorKind::Unroutable {
        return error;
    }
    let told = Error::new(ErrorKind::Misconfigured, error.operation()).not_applied();
    // The broker's words name the exchange.
    match std::error::Error::source(&error) {
        Some(cause) => told.describe(format!("{} (`transport.verify`): {cause}", error.description())),
        None => told.describe(format!("{} (`transport.verify`)", error.description())),
    }
}

fn rejected(description: String) -> Error {
    Error::new(ErrorKind::Rejected, Operation::Publish.name()).describe(description).not_applied()
}

/// Why a channel or a connection ended, for the messages that were in flight.
pub(crate) struct Ending {
    kind: ErrorKind,
    description: String,
    cause: Option<lapin::Error>,
}

impl Ending {
    /// From what the messages were told. An error that may be the fault of one message blames none of several: they are
    /// `Unavailable`, so that the relay sends them one at a time, and the one at fault is alone then.
    pub(crate) fn of<'a>(
        errors: impl Iterator<Item = &'a lapin::Error>,
        in_flight: usize,
        config: &RabbitMqConfig,
    ) -> Self {
        let cause = errors.min_by_key(|error| vagueness(error));
        let (kind, advice) = cause.map_or((ErrorKind::Unexpected, "the client failed"), |error| {
            classify(error.kind(), Operation::Publish)
        });
        let address = config.address();
        let is_topic = cause.is_some_and(refuses_a_topic);
        let (kind, advice) = if is_topic {
            (
                ErrorKind::Unroutable,
                "the user may not write to the topic; `rabbitmqctl set_topic_permissions`",
            )
        } else {
            (kind, advice)
        };
        let blames_a_message = is_topic || matches!(kind, ErrorKind::Rejected | ErrorKind::Unexpected);
        let (kind, description) = if blames_a_message && in_flight > 1 {
            let description = format!(
                "RabbitMQ at {address}: {advice}; one of {in_flight} messages is at fault, and they are sent one at a time to find it"
            );
            (ErrorKind::Unavailable, description)
        } else {
            (kind, format!("RabbitMQ at {address}: {advice}"))
        };
        Self { kind, description, cause: cause.cloned() }
    }

    pub(crate) fn error(&self) -> Error {
        let error = Error::new(self.kind, Operation::Publish.name()).describe(self.description.clone());
        match &self.cause {
            Some(cause) => error.caused_by(cause.clone()),
            None => error,
        }
    }
}

/// Permissions for topics concern single messages, and the broker tells them from other permissions by its words alone.
fn refuses_a_topic(error: &lapin::Error) -> bool {
    let lapin::ErrorKind::ProtocolError(error) = error.kind() else { return false };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
        && error.get_message().as_str().contains("access to topic")
}

/// The broker's own words tell most, and that something is closed tells least.
fn vagueness(error: &lapin::Error) -> u8 {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(_) | lapin::ErrorKind::SerialisationError(_) => 0,
        lapin::ErrorKind::InvalidChannelState(..)
        | lapin::ErrorKind::InvalidConnectionState(_)
        | lapin::ErrorKind::InvalidChannel(_) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::{AMQPError, AMQPHardError};

    fn config() -> RabbitMqConfig {
        RabbitMqConfig::from_url("amqp://ann:s3cret@broker").unwrap()
    }

    fn protocol(kind: impl Into<AMQPErrorKind>) -> lapin::Error {
        lapin::ErrorKind::ProtocolError(AMQPError::new(kind.into(), "said the broker".into())).into()
    }

    #[test]
    fn a_message_is_blamed_only_when_it_is_alone() {
        for (error, alone) in [
            (protocol(AMQPSoftError::PRECONDITIONFAILED), ErrorKind::Rejected),
            (protocol(AMQPHardError::FRAMEERROR), ErrorKind::Unexpected),
        ] {
            assert_eq!(Ending::of([&error].into_iter(), 1, &config()).kind, alone);
            let together = Ending::of([&error].into_iter(), 2, &config());
            assert_eq!(together.kind, ErrorKind::Unavailable);
            assert!(together.error().description().contains("one of 2 messages"));
        }
    }

    #[test]
    fn a_topic_that_is_refused_blames_its_message() {
        let refused = |words: &str| -> lapin::Error {
            lapin::ErrorKind::ProtocolError(AMQPError::new(AMQPSoftError::ACCESSREFUSED.into(), words.into()))
                .into()
        };
        let topic = refused("ACCESS_REFUSED - access to topic 'a' in exchange 'b' in vhost '/' refused");
        assert_eq!(Ending::of([&topic].into_iter(), 1, &config()).kind, ErrorKind::Unroutable);
        assert_eq!(Ending::of([&topic].into_iter(), 2, &config()).kind, ErrorKind::Unavailable);
        let exchange = refused("ACCESS_REFUSED - access to exchange 'b' in vhost '/' refused");
        assert_eq!(Ending::of([&exchange].into_iter(), 2, &config()).kind, ErrorKind::Misconfigured);
    }

    #[test]
    fn a_missing_exchange_is_told_to_all() {
        let closed: lapin::Error =
            lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "publish").into();
        let missing = protocol(AMQPSoftError::NOTFOUND);
        let ending = Ending::of([&closed, &missing].into_iter(), 7, &config());
        assert_eq!(ending.kind, ErrorKind::Unroutable);
        let report = ending.error().report();
        assert!(report.contains("said the broker") && !report.contains("s3cret"), "{report}");
    }
}
