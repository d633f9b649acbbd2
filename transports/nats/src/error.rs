//! What the client's errors and JetStream's mean to a relay: one table each.

use async_nats::{ConnectError, ConnectErrorKind, rustls};
use pillarbox_core::{Error, ErrorKind};
use serde::Deserialize;

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Connecting, and asking for topology.
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

/// No connection was made, so nothing was sent.
pub(crate) fn not_connected(failure: &ConnectError, operation: Operation, place: &str) -> Error {
    // The client calls a handshake that fails an error of reading or writing.
    let kind = if is_of_a_certificate(failure) { ConnectErrorKind::Tls } else { failure.kind() };
    let (kind, advice) = of_connecting(kind);
    let error =
        Error::new(kind, operation.name()).describe(format!("NATS at {place}: {advice}")).not_applied();
    // The client's words for what lies beneath: a system's error, a certificate's. They hold no credential.
    match std::error::Error::source(failure) {
        Some(cause) => error.caused_by(cause.to_string()),
        None => error,
    }
}

fn is_of_a_certificate(failure: &ConnectError) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(failure), |cause| cause.source());
    causes.any(|cause| {
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        held.is_some_and(|held| matches!(held.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
    })
}

fn of_connecting(kind: ConnectErrorKind) -> (ErrorKind, &'static str) {
    match kind {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => (
            ErrorKind::Misconfigured,
            "the server refuses the user, the password, the token or the credentials",
        ),
        ConnectErrorKind::ServerParse => (ErrorKind::Misconfigured, "the address is malformed"),
        ConnectErrorKind::Tls => (
            ErrorKind::Misconfigured,
            "TLS cannot be set up; does the server offer it, and is its authority among `transport.root_certificates`?",
        ),
        ConnectErrorKind::Dns => (ErrorKind::Unavailable, "the name of the host is not found"),
        ConnectErrorKind::TimedOut => {
            (ErrorKind::Unavailable, "no answer within `transport.connect_timeout`")
        }
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            (ErrorKind::Unavailable, "cannot connect; is it running?")
        }
    }
}

/// What JetStream says instead of an acknowledgement.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    /// As in HTTP.
    #[serde(default)]
    pub(crate) code: u32,
    /// Names the error; numbers and names are those of the server's `errors.json`.
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

/// What a refusal means. Nothing was stored, except where the message was being stored already.
pub(crate) fn refused(refusal: &Refusal, operation: Operation, place: &str) -> Error {
    let (kind, advice) = of_jetstream(refusal);
    let error = Error::new(kind, operation.name())
        .describe(format!("NATS at {place}: {advice}"))
        .caused_by(format!("{} (error {})", refusal.description, refusal.err_code));
    if refusal.err_code == DUPLICATE_IN_PROCESS { error } else { error.not_applied() }
}

const DUPLICATE_IN_PROCESS: u32 = 10158;

fn of_jetstream(refusal: &Refusal) -> (ErrorKind, &'static str) {
    match refusal.err_code {
        10054 => (ErrorKind::Rejected, "the message is larger than the stream's `max_msg_size`"),
        10097 => (ErrorKind::Rejected, "the headers are larger than the server takes"),
        10059 => (ErrorKind::Unroutable, "the stream is not there"),
        10060 => (ErrorKind::Unroutable, "another stream than `transport.stream` listens on the topic"),
        10109 => (ErrorKind::Unroutable, "the stream is sealed"),
        10039 | 10076 => {
            (ErrorKind::Misconfigured, "JetStream is not enabled, for the server or for this account")
        }
        // A limit with `discard: new`, or a disk that does not take it. What was stored before stays.
        10077 => (ErrorKind::Unavailable, "the stream does not store the message; is it full, or the disk?"),
        10002 | 10023 | 10028 | 10047 | 10122 => {
            (ErrorKind::Unavailable, "the resources of the account or of the server are used up")
        }
        10167 => (ErrorKind::Unavailable, "the server has too many requests"),
        DUPLICATE_IN_PROCESS => (ErrorKind::Unavailable, "the message is just being stored"),
        10008 | 10009 | 10118 | 10194 => (ErrorKind::Unavailable, "the cluster or the stream is not ready"),
        _ if refusal.code >= 500 => (ErrorKind::Unavailable, "JetStream is in trouble"),
        _ => (ErrorKind::Unexpected, "JetStream refuses the request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Effect;

    #[test]
    fn every_row_of_connecting() {
        for (kind, expected) in [
            (ConnectErrorKind::AuthorizationViolation, ErrorKind::Misconfigured),
            (ConnectErrorKind::Authentication, ErrorKind::Misconfigured),
            (ConnectErrorKind::ServerParse, ErrorKind::Misconfigured),
            (ConnectErrorKind::Tls, ErrorKind::Misconfigured),
            (ConnectErrorKind::Dns, ErrorKind::Unavailable),
            (ConnectErrorKind::TimedOut, ErrorKind::Unavailable),
            (ConnectErrorKind::Io, ErrorKind::Unavailable),
            (ConnectErrorKind::MaxReconnects, ErrorKind::Unavailable),
        ] {
            assert_eq!(of_connecting(kind).0, expected, "{kind:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_no_outage() {
        let of = |error: std::io::Error| {
            let error = not_connected(&ConnectError::from(error), Operation::Open, "broker:4222");
            (error.kind(), error.effect())
        };
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(of(std::io::Error::other(unknown)), (ErrorKind::Misconfigured, Effect::NotApplied));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(of(refused), (ErrorKind::Unavailable, Effect::NotApplied));
    }

    #[test]
    fn every_row_of_jetstream() {
        use ErrorKind::{Misconfigured, Rejected, Unavailable, Unexpected, Unroutable};
        for (code, err_code, expected) in [
            (400, 10054, Rejected),
            (400, 10097, Rejected),
            (404, 10059, Unroutable),
            (400, 10060, Unroutable),
            (400, 10109, Unroutable),
            (503, 10039, Misconfigured),
            (503, 10076, Misconfigured),
            (503, 10077, Unavailable),
            (400, 10002, Unavailable),
            (503, 10023, Unavailable),
            (500, 10028, Unavailable),
            (500, 10047, Unavailable),
            (500, 10122, Unavailable),
            (429, 10167, Unavailable),
            (409, 10158, Unavailable),
            (503, 10008, Unavailable),
            (503, 10009, Unavailable),
            (500, 10118, Unavailable),
            (500, 10194, Unavailable),
            (503, 1, Unavailable),
            (400, 10071, Unexpected),
        ] {
            let refusal = Refusal { code, err_code, description: "said the server".to_owned() };
            let error = refused(&refusal, Operation::Publish, "broker:4222");
            assert_eq!(error.kind(), expected, "{err_code}");
            let effect = if err_code == 10158 { Effect::Unknown } else { Effect::NotApplied };
            assert_eq!(error.effect(), effect, "{err_code}");
            assert!(
                error.to_string().contains("broker:4222")
                    && error.report().ends_with(&format!("(error {err_code})"))
            );
            assert!(!error.to_string().contains("said the server"), "{error}");
        }
    }
}
