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
    let (kind, advice, unsent) = classify(&error);
    let told = Error::new(kind, operation.name()).describe(format!("{place}: {advice}")).caused_by(error);
    if unsent { told.not_applied() } else { told }
}

/// The kind, what to do, and whether certainly nothing was received.
fn classify(error: &reqwest::Error) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Indeterminate, Misconfigured, Rejected, Unavailable};
    if cause::<RefusedAddress>(error).is_some() {
        return (
            Misconfigured,
            "its name leads to an address of a private network, which is refused; set `transport.allow_private=true` if it is yours",
            true,
        );
    }
    if let Some(rustls::Error::InvalidCertificate(_)) = cause::<rustls::Error>(error) {
        return (
            Misconfigured,
            "its certificate is not valid; is the host right, and its authority known?",
            true,
        );
    }
    if error.is_builder() {
        return (Rejected, "the request cannot be written", true);
    }
    if error.is_connect() {
        return (Unavailable, "no connection; is it running and reachable?", true);
    }
    if error.is_timeout() {
        return (Indeterminate, "it did not answer in time (`transport.timeout`)", false);
    }
    (Unavailable, "the connection was lost before an answer", false)
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
    fn a_cause_is_found_however_deep() {
        let refused = std::io::Error::other(std::io::Error::other(RefusedAddress));
        assert!(cause::<RefusedAddress>(&refused).is_some());
        assert!(cause::<rustls::Error>(&refused).is_none());
    }
}
