//! What lapin's errors mean to a relay: one table.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use pillarbox_core::{Error, ErrorKind};

/// An error of the client, described by the broker's `user@host:port`.
pub(crate) fn from_client(error: lapin::Error, operation: &'static str, address: &str) -> Error {
    let (kind, advice) = classify(error.kind());
    Error::new(kind, operation).describe(format!("RabbitMQ at {address}: {advice}")).caused_by(error)
}

/// Whether the client is certain that nothing was sent: it refused by itself, in a state that sends nothing.
pub(crate) fn was_not_sent(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        lapin::ErrorKind::InvalidChannelState(..)
            | lapin::ErrorKind::InvalidConnectionState(_)
            | lapin::ErrorKind::InvalidChannel(_)
            | lapin::ErrorKind::SerialisationError(_)
    )
}

fn classify(kind: &lapin::ErrorKind) -> (ErrorKind, &'static str) {
    use lapin::ErrorKind as Client;
    match kind {
        Client::IOError(_) | Client::MissingHeartbeatError | Client::ParsingError(_) => {
            (ErrorKind::Unavailable, "the connection is lost; is the broker running and reachable?")
        }
        Client::InvalidConnectionState(_) | Client::InvalidChannelState(..) | Client::InvalidChannel(_) => {
            (ErrorKind::Unavailable, "the connection was closed")
        }
        Client::RuntimeShutdownError(_) => (ErrorKind::Unavailable, "the runtime is shutting down"),
        Client::ChannelsLimitReached => (ErrorKind::Unavailable, "no more channels on this connection"),
        Client::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => classify_soft(soft),
            AMQPErrorKind::Hard(hard) => classify_hard(hard),
        },
        Client::AuthProviderError(_) => (ErrorKind::Misconfigured, "the credentials could not be given"),
        Client::InvalidProtocolVersion(_) => {
            (ErrorKind::Misconfigured, "the server does not speak AMQP 0-9-1")
        }
        Client::NoDefaultRuntime => (ErrorKind::Misconfigured, "open it inside of a tokio runtime"),
        Client::SerialisationError(_) => (ErrorKind::Rejected, "the message cannot be written as AMQP"),
        _ => (ErrorKind::Unexpected, "the client failed"),
    }
}

fn classify_soft(error: &AMQPSoftError) -> (ErrorKind, &'static str) {
    match error {
        AMQPSoftError::NOTFOUND => {
            (ErrorKind::Unroutable, "the exchange is not there; create it, or set `transport.declare`")
        }
        AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS => {
            (ErrorKind::Unroutable, "no queue is bound for the topic")
        }
        AMQPSoftError::CONTENTTOOLARGE => (ErrorKind::Rejected, "the message is too large"),
        AMQPSoftError::ACCESSREFUSED => {
            (ErrorKind::Misconfigured, "access is refused; check the user, the password and the permissions")
        }
        AMQPSoftError::PRECONDITIONFAILED => (
            ErrorKind::Misconfigured,
            "the broker refuses; the exchange exists with other settings, or `transport.max_payload` is above its limit",
        ),
        AMQPSoftError::RESOURCELOCKED => (ErrorKind::Unavailable, "the resource is locked"),
    }
}

fn classify_hard(error: &AMQPHardError) -> (ErrorKind, &'static str) {
    match error {
        AMQPHardError::CONNECTIONFORCED => {
            (ErrorKind::Unavailable, "an operator or a shutdown closed the connection")
        }
        AMQPHardError::INTERNALERROR | AMQPHardError::RESOURCEERROR => {
            (ErrorKind::Unavailable, "the broker is in trouble")
        }
        AMQPHardError::INVALIDPATH | AMQPHardError::NOTALLOWED => {
            (ErrorKind::Misconfigured, "not allowed; does the virtual host exist, and may the user open it?")
        }
        _ => (ErrorKind::Unexpected, "the broker reports an error of the protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::AMQPError;
    use std::io;
    use std::sync::Arc;

    fn protocol(kind: impl Into<AMQPErrorKind>) -> lapin::ErrorKind {
        lapin::ErrorKind::ProtocolError(AMQPError::new(kind.into(), "said the broker".into()))
    }

    #[test]
    fn every_row_of_the_table() {
        use AMQPHardError as Hard;
        use AMQPSoftError as Soft;
        use lapin::ErrorKind as Client;
        let io = || Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
        for (kind, expected) in [
            (Client::IOError(io()), ErrorKind::Unavailable),
            (Client::MissingHeartbeatError, ErrorKind::Unavailable),
            (Client::InvalidConnectionState(lapin::ConnectionState::Closed), ErrorKind::Unavailable),
            (Client::InvalidChannelState(lapin::ChannelState::Closed, "publish"), ErrorKind::Unavailable),
            (Client::InvalidChannel(3), ErrorKind::Unavailable),
            (Client::RuntimeShutdownError(io()), ErrorKind::Unavailable),
            (Client::ChannelsLimitReached, ErrorKind::Unavailable),
            (Client::AuthProviderError(String::new()), ErrorKind::Misconfigured),
            (Client::NoDefaultRuntime, ErrorKind::Misconfigured),
            (Client::FutureCompleted, ErrorKind::Unexpected),
            (protocol(AMQPErrorKind::Soft(Soft::NOTFOUND)), ErrorKind::Unroutable),
            (protocol(AMQPErrorKind::Soft(Soft::NOROUTE)), ErrorKind::Unroutable),
            (protocol(AMQPErrorKind::Soft(Soft::NOCONSUMERS)), ErrorKind::Unroutable),
            (protocol(AMQPErrorKind::Soft(Soft::CONTENTTOOLARGE)), ErrorKind::Rejected),
            (protocol(AMQPErrorKind::Soft(Soft::ACCESSREFUSED)), ErrorKind::Misconfigured),
            (protocol(AMQPErrorKind::Soft(Soft::PRECONDITIONFAILED)), ErrorKind::Misconfigured),
            (protocol(AMQPErrorKind::Soft(Soft::RESOURCELOCKED)), ErrorKind::Unavailable),
            (protocol(AMQPErrorKind::Hard(Hard::CONNECTIONFORCED)), ErrorKind::Unavailable),
            (protocol(AMQPErrorKind::Hard(Hard::INTERNALERROR)), ErrorKind::Unavailable),
            (protocol(AMQPErrorKind::Hard(Hard::RESOURCEERROR)), ErrorKind::Unavailable),
            (protocol(AMQPErrorKind::Hard(Hard::INVALIDPATH)), ErrorKind::Misconfigured),
            (protocol(AMQPErrorKind::Hard(Hard::NOTALLOWED)), ErrorKind::Misconfigured),
            (protocol(AMQPErrorKind::Hard(Hard::FRAMEERROR)), ErrorKind::Unexpected),
        ] {
            assert_eq!(classify(&kind).0, expected, "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_of_the_client_itself_was_not_sent() {
        let closed = lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "publish");
        assert!(was_not_sent(&closed.into()));
        assert!(!was_not_sent(&lapin::ErrorKind::MissingHeartbeatError.into()));
    }
}
