//! What lapin's errors mean to a relay: one table.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use pillarbox_core::{Error, ErrorKind};

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Connecting, and declaring or asking for topology.
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

/// An error of the client, described by the broker's `user@host:port`.
pub(crate) fn describe(error: &lapin::Error, operation: Operation, address: &str) -> Error {
    let (kind, advice) = classify(error.kind(), operation);
    Error::new(kind, operation.name())
        .describe(format!("RabbitMQ at {address}: {advice}"))
        .caused_by(error.clone())
}

/// The table.
pub(crate) fn classify(kind: &lapin::ErrorKind, operation: Operation) -> (ErrorKind, &'static str) {
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
            AMQPErrorKind::Soft(soft) => classify_soft(soft, operation),
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

/// Errors that close a channel, or refuse a login.
fn classify_soft(error: &AMQPSoftError, operation: Operation) -> (ErrorKind, &'static str) {
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
        AMQPSoftError::PRECONDITIONFAILED if operation == Operation::Publish => (
            ErrorKind::Rejected,
            "the broker refuses the message; lower `transport.max_payload` if it is above the broker's `max_message_size`",
        ),
        AMQPSoftError::PRECONDITIONFAILED => (
            ErrorKind::Misconfigured,
            "the exchange exists with other settings than `transport.declare` gives",
        ),
        AMQPSoftError::RESOURCELOCKED => (ErrorKind::Unavailable, "the resource is locked"),
    }
}

/// Errors that close the connection.
fn classify_hard(error: &AMQPHardError) -> (ErrorKind, &'static str) {
    match error {
        AMQPHardError::CONNECTIONFORCED => {
            (ErrorKind::Unavailable, "an operator or a shutdown closed the connection")
        }
        AMQPHardError::INTERNALERROR | AMQPHardError::RESOURCEERROR => {
            (ErrorKind::Unavailable, "the broker is in trouble")
        }
        // What was on its way when the broker closed a channel arrives on a channel that is not open.
        AMQPHardError::CHANNELERROR => {
            (ErrorKind::Unavailable, "the connection ended after one of its channels")
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
            (protocol(Soft::NOTFOUND), ErrorKind::Unroutable),
            (protocol(Soft::NOROUTE), ErrorKind::Unroutable),
            (protocol(Soft::NOCONSUMERS), ErrorKind::Unroutable),
            (protocol(Soft::CONTENTTOOLARGE), ErrorKind::Rejected),
            (protocol(Soft::ACCESSREFUSED), ErrorKind::Misconfigured),
            (protocol(Soft::PRECONDITIONFAILED), ErrorKind::Rejected),
            (protocol(Soft::RESOURCELOCKED), ErrorKind::Unavailable),
            (protocol(Hard::CONNECTIONFORCED), ErrorKind::Unavailable),
            (protocol(Hard::INTERNALERROR), ErrorKind::Unavailable),
            (protocol(Hard::RESOURCEERROR), ErrorKind::Unavailable),
            (protocol(Hard::CHANNELERROR), ErrorKind::Unavailable),
            (protocol(Hard::INVALIDPATH), ErrorKind::Misconfigured),
            (protocol(Hard::NOTALLOWED), ErrorKind::Misconfigured),
            (protocol(Hard::FRAMEERROR), ErrorKind::Unexpected),
            (protocol(Hard::SYNTAXERROR), ErrorKind::Unexpected),
            (protocol(Hard::COMMANDINVALID), ErrorKind::Unexpected),
            (protocol(Hard::UNEXPECTEDFRAME), ErrorKind::Unexpected),
            (protocol(Hard::NOTIMPLEMENTED), ErrorKind::Unexpected),
        ] {
            assert_eq!(classify(&kind, Operation::Publish).0, expected, "{kind:?}");
        }
    }

    #[test]
    fn an_exchange_with_other_settings_is_a_wrong_setting() {
        let refused = protocol(AMQPSoftError::PRECONDITIONFAILED);
        assert_eq!(classify(&refused, Operation::Open).0, ErrorKind::Misconfigured);
    }

    #[test]
    fn the_cause_is_kept_and_not_repeated() {
        let error =
            describe(&protocol(AMQPSoftError::ACCESSREFUSED).into(), Operation::Open, "ann@broker:5672");
        assert!(
            error.to_string().contains("ann@broker:5672") && !error.to_string().contains("said the broker")
        );
        assert!(error.report().contains("said the broker"));
    }
}
