//! What the client's errors mean to a relay: one table.

use crate::connection::RefusedAddress;
use pillarbox_core::{Error, ErrorKind};
use std::error::Error as StdError;

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Publish,
    Probe,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Probe => "probe",
        }
    }
}

/// An error of the client, described by the endpoint's scheme, host and port. The client's own words would repeat the URL.
pub(crate) fn describe(error: reqwest::Error, operation: Operation, place: &str) -> Error {
    let error = error.without_url();
    let (kind, advice, unsent) = Cause::of(&error).means();
    let told = Error::new(kind, operation.name()).describe(format!("{place}: {advice}")).caused_by(error);
    if unsent { told.not_applied() } else { told }
}

/// What went wrong, as far as a relay cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The name leads to addresses that are refused.
    Address,
    /// Nobody vouches for the endpoint.
    Certificate,
    /// The request never was one.
    Request,
    /// There is no connection.
    Connection,
    /// There was one.
    Lost,
}

impl Cause {
    /// A connection that is refused for one of the first two reasons is one that could not be made, so they are looked for first. The
    /// client has no limit of time but that of connecting: the publish keeps the others.
    fn of(error: &reqwest::Error) -> Self {
        if cause::<RefusedAddress>(error).is_some() {
            Self::Address
        } else if let Some(rustls::Error::InvalidCertificate(_)) = cause::<rustls::Error>(error) {
            Self::Certificate
        } else if error.is_builder() {
            Self::Request
        } else if error.is_connect() {
            Self::Connection
        } else {
            Self::Lost
        }
    }

    /// The kind, what to do, and whether certainly nothing was received.
    const fn means(self) -> (ErrorKind, &'static str, bool) {
        use ErrorKind::{Misconfigured, Rejected, Unavailable};
        match self {
            Self::Address => (
                Misconfigured,
                "its name leads to an address of a private network, which is refused; set `transport.allow_private=true` if it is yours",
                true,
            ),
            Self::Certificate => (
                Misconfigured,
                "its certificate is not valid; is the host right, and its authority known (`transport.root_certificates`)?",
                true,
            ),
            Self::Request => (Rejected, "the request cannot be written", true),
            Self::Connection => (Unavailable, "no connection; is it running and reachable?", true),
            Self::Lost => (Unavailable, "the connection was lost before an answer", false),
        }
    }
}

/// The cause of this type, however deep.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // What an error of the system holds is not its source, but stands beside it.
        if let Some(held) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            let held: &'a (dyn StdError + 'static) = held;
            if let Some(found) = cause::<T>(held) {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row() {
        for (cause, kind, unsent) in [
            (Cause::Address, ErrorKind::Misconfigured, true),
            (Cause::Certificate, ErrorKind::Misconfigured, true),
            (Cause::Request, ErrorKind::Rejected, true),
            (Cause::Connection, ErrorKind::Unavailable, true),
            (Cause::Lost, ErrorKind::Unavailable, false),
        ] {
            let (of_cause, _, of_effect) = cause.means();
            assert_eq!((of_cause, of_effect), (kind, unsent), "{cause:?}");
        }
    }

    /// The other rows are those of real endpoints: `failures`, `requests` and `tls` among the integration tests.
    #[test]
    fn a_request_that_cannot_be_written_is_the_message_s_fault() {
        let config = crate::HttpConfig::from_url("https://host/").unwrap();
        let client = crate::connection::client(&config).unwrap();
        let request = client.post("https://host/s3cret").header("a", "line\nbreak");
        let error = request.build().unwrap_err();
        assert_eq!(Cause::of(&error), Cause::Request);
        let told = describe(error, Operation::Publish, "https://host");
        assert!(!format!("{told:?} {}", told.report()).contains("s3cret"));
    }

    #[test]
    fn a_cause_is_found_however_deep() {
        let refused = std::io::Error::other(std::io::Error::other(RefusedAddress));
        assert!(cause::<RefusedAddress>(&refused).is_some());
        assert!(cause::<rustls::Error>(&refused).is_none());
    }
}
