//! One table from the client's errors to what a relay does about them.

use mongodb::bson::Document;
use mongodb::error::{
    Error as ClientError, ErrorKind as Client, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};
use pillarbox_core::{Error, ErrorKind};
use std::time::Duration;

/// Maps a failure of `operation` at `place` (hosts and ports).
pub(crate) fn map(error: ClientError, operation: &'static str, place: &str) -> Error {
    let (kind, advice) = row(&error);
    let refused = operation == "open" || matches!(kind, ErrorKind::Misconfigured | ErrorKind::Rejected);
    let mapped = Error::new(kind, operation)
        .describe(format!("MongoDB at {place}: {advice}"))
        .caused_by(Shown::from(error));
    if refused { mapped.not_applied() } else { mapped }
}

/// Maps what stands in the answer of a command that wrote: an error of a write, or of its confirmation.
pub(crate) fn written(failure: &Document, operation: &'static str, place: &str) -> Error {
    let code = failure.get_i32("code").unwrap_or_default();
    let (kind, advice) = code_row(code);
    let told = failure.get_str("errmsg").unwrap_or_default();
    Error::new(kind, operation)
        .describe(format!("MongoDB at {place}: {advice}"))
        .caused_by(Shown::new(told.to_owned(), Some(code)))
}

/// A call that took longer than `response_timeout`.
pub(crate) fn timed_out(operation: &'static str, place: &str, after: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, operation).describe(format!(
        "MongoDB at {place}: it did not answer within {after:?} (`outbox.response_timeout`)"
    ))
}

/// The server's code, wherever the client keeps it.
pub(crate) fn code(error: &ClientError) -> Option<i32> {
    match error.kind.as_ref() {
        Client::Command(error) => Some(error.code),
        Client::Write(WriteFailure::WriteError(error)) => Some(error.code),
        Client::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        Client::InsertMany(error) => {
            let write = error.write_errors.iter().flatten().map(|error| error.code).next();
            write.or_else(|| error.write_concern_error.as_ref().map(|error| error.code))
        }
        _ => None,
    }
}

fn row(error: &ClientError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match error.kind.as_ref() {
        Client::ServerSelection { .. } => {
            (Unavailable, "no primary can be reached; is it running, and is `replicaSet` right?")
        }
        Client::Io(_) | Client::ConnectionPoolCleared { .. } => {
            (Unavailable, "is it running, and reachable?")
        }
        Client::DnsResolve { .. } => (Unavailable, "its name cannot be resolved"),
        Client::Authentication { .. } => (Misconfigured, "check the user and the password"),
        Client::InvalidArgument { .. } | Client::InvalidTlsConfig { .. } => (Misconfigured, "check the URL"),
        Client::SessionsNotSupported | Client::IncompatibleServer { .. } => (
            Misconfigured,
            "it has no sessions or transactions; a replica set of version 6.0 or later is needed",
        ),
        Client::Transaction { .. } => {
            (Misconfigured, "the transaction cannot be used; is this a replica set, and was it begun?")
        }
        Client::Shutdown => (Unavailable, "the application has shut its client down"),
        _ => match code(error).map(code_row) {
            // Newer servers have codes that this table does not know, and say themselves what may be repeated.
            Some((Unexpected, _)) if may_be_repeated(error) => {
                (Unavailable, "it says that this can be repeated")
            }
            Some(row) => row,
            None => (Unexpected, "it answered something that was not expected"),
        },
    }
}

fn may_be_repeated(error: &ClientError) -> bool {
    let labels = [RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT];
    labels.iter().any(|label| error.contains_label(label))
}

/// By the server's own codes.
fn code_row(code: i32) -> (ErrorKind, &'static str) {
    use ErrorKind::{Misconfigured, Rejected, Unavailable, Unexpected};
    match code {
        13 => (Misconfigured, "the user may not do this; grant it `readWrite` on the database"),
        18 => (Misconfigured, "check the user and the password"),
        20 => (Misconfigured, "it is no replica set; start it with `--replSet` and initiate it"),
        121 => (Rejected, "a document was refused by a validator on the collection"),
        10334 | 17280 => (Rejected, "a document is larger than 16 MB"),
        // Interrupted, shutting down, stepping down, no primary, not a primary, and what follows a failover.
        6 | 7 | 89 | 91 | 189 | 262 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436 => {
            (Unavailable, "it is stepping down, shutting down or in an election")
        }
        50 | 64 | 79 | 100 | 202 => {
            (Unavailable, "it did not answer, or a majority did not confirm, in time")
        }
        // A lock that was not free in time too.
        24 | 112 | 225 | 244 | 251 | 256 | 263 => {
            (Unavailable, "the transaction met another one; it can be repeated")
        }
        246 | 239 => (Unavailable, "the snapshot is too old or not there yet; it can be repeated"),
        14031 | 39 => (Unavailable, "its disk is full"),
        67 => (Misconfigured, "it cannot build an index; is its `featureCompatibilityVersion` below 6.0?"),
        26 => (Misconfigured, "a collection of this outbox is missing; open the outbox again"),
        _ => (Unexpected, "it answered with an error that was not expected"),
    }
}

/// The client's error in one line. Its own `Display` may be long, and hold the answer of the server as a whole.
#[derive(Debug)]
struct Shown {
    line: String,
    code: Option<i32>,
}

impl Shown {
    fn new(mut line: String, code: Option<i32>) -> Self {
        const LONGEST: usize = 500;
        line.truncate(line.floor_char_boundary(LONGEST));
        Self { line, code }
    }
}

impl From<ClientError> for Shown {
    fn from(error: ClientError) -> Self {
        Self::new(error.kind.to_string(), code(&error))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.line)?;
        if let Some(code) = self.code {
            write!(formatter, " (code {code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Shown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_own_errors_have_theirs() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let error = map(ClientError::from(io), "claim", "host:1");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.effect(), pillarbox_core::Effect::Unknown);
        assert!(error.to_string().contains("host:1"), "{error}");
        let error = map(ClientError::custom(()), "claim", "host:1");
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        let late = timed_out("claim", "host:1", Duration::from_secs(1));
        assert_eq!(late.kind(), ErrorKind::Unavailable);
        assert!(late.to_string().contains("`outbox.response_timeout`"), "{late}");
    }

    /// Those that the client makes itself, without a server.
    #[tokio::test]
    async fn what_the_client_refuses_has_its_kind() {
        let told = |failure: ClientError| map(failure, "claim", "host:1");
        let client =
            mongodb::Client::with_uri_str("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50").await;
        let client = client.unwrap();
        let nobody = told(client.list_database_names().await.unwrap_err());
        assert_eq!(nobody.kind(), ErrorKind::Unavailable);
        assert!(nobody.to_string().contains("no primary can be reached"), "{nobody}");
        let mut session = client.start_session().await.unwrap();
        let unbegun = told(session.commit_transaction().await.unwrap_err());
        assert_eq!(unbegun.kind(), ErrorKind::Misconfigured, "{unbegun:?}");
        assert!(unbegun.to_string().contains("was it begun"), "{unbegun}");
        drop(session);
        client.clone().shutdown().await;
        let shut = told(client.list_database_names().await.unwrap_err());
        assert_eq!(shut.kind(), ErrorKind::Unavailable, "{shut:?}");
        assert!(shut.to_string().contains("has shut its client down"), "{shut}");
        let missing = "mongodb://127.0.0.1:9/d?tls=true&tlsCAFile=/nowhere/to/be.found";
        let missing = told(mongodb::Client::with_uri_str(missing).await.unwrap_err());
        assert_eq!(missing.kind(), ErrorKind::Misconfigured, "{missing:?}");
        assert!(missing.to_string().contains("check the URL"), "{missing}");
    }
}
