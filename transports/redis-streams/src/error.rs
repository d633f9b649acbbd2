//! What the client's errors and the server's answers mean to a relay: one table.

use pillarbox_core::{Error, ErrorKind};
use redis::{ErrorKind as Client, RedisError};

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

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection: nothing was sent.
    Connect(RedisError),
    /// A connection was there.
    Request(RedisError),
}

/// A failure, described by the server's host and port.
pub(crate) fn describe(failure: Failure, operation: Operation, place: &str) -> Error {
    match failure {
        Failure::Connect(error) => {
            let (kind, advice, _) = classify(&error);
            // A message is not at fault before it was sent.
            let kind = if kind == ErrorKind::Misconfigured { kind } else { ErrorKind::Unavailable };
            Error::new(kind, operation.name())
                .describe(format!("no connection to Redis at {place}: {advice}"))
                .caused_by(shown(error))
                .not_applied()
        }
        Failure::Request(error) => {
            let (kind, advice, refused) = classify(&error);
            let told = Error::new(kind, operation.name())
                .describe(format!("Redis at {place}: {advice}"))
                .caused_by(shown(error));
            if refused { told.not_applied() } else { told }
        }
    }
}

/// The kind, what to do, and whether the command was certainly refused.
fn classify(error: &RedisError) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match error.kind() {
        Client::Io if error.is_timeout() => (Unavailable, "it did not answer in time", false),
        Client::Io => (Unavailable, "the connection is lost; is it running, and reachable?", false),
        Client::Parse => (Unavailable, "the connection broke within an answer", false),
        Client::AuthenticationFailed => (Misconfigured, "check the user and the password", true),
        Client::InvalidClientConfig => (Misconfigured, "check the URL", true),
        Client::RESP3NotSupported => (Misconfigured, "leave `protocol=resp3` out of the URL", true),
        _ => match error.code() {
            Some(code) => answered(code, error.detail().unwrap_or_default()),
            None => (Unexpected, "it answered something that was not expected", false),
        },
    }
}

/// The server's errors, by the first word of their text.
pub(crate) fn answered(code: &str, detail: &str) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected, Unroutable};
    match code {
        "OOM" => {
            (Unavailable, "its memory is full; raise `maxmemory`, or trim what consumers have read", true)
        }
        "LOADING" => (Unavailable, "it is loading its data", true),
        "READONLY" | "MASTERDOWN" => {
            (Unavailable, "this one takes no writes; a failover may be under way", true)
        }
        "BUSY" => (Unavailable, "it is busy with somebody's script", true),
        "MISCONF" => (Unavailable, "it cannot write its data to disk, and refuses writes", true),
        "NOREPLICAS" => (Unavailable, "too few replicas are connected (`min-replicas-to-write`)", true),
        "UNBLOCKED" => (Unavailable, "a failover is under way", false),
        "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "CROSSSLOT" => {
            (Misconfigured, "it is part of a cluster; use a server of its own", true)
        }
        "NOAUTH" | "WRONGPASS" => (Misconfigured, "check the user and the password", true),
        "WRONGTYPE" => (
            Unroutable,
            "the stream's name holds something else; set `transport.prefix`, or free the name",
            true,
        ),
        "NOSTREAM" => (
            Unroutable,
            "the stream is not there; make it (`XGROUP CREATE … MKSTREAM`), or set `transport.create=true`",
            true,
        ),
        // One stream's permission must not hold up the others.
        "NOPERM" if detail.contains("key") => {
            (Unroutable, "the user may not write to this stream; grant it the stream's name", true)
        }
        "NOPERM" => (
            Misconfigured,
            "the user may not do this; grant it `+xadd +eval +multi +exec +ping`, and `+wait` where `transport.replicas` is set",
            true,
        ),
        "ERR" if detail.contains("max number of clients") => {
            (Unavailable, "it has no room for another client", true)
        }
        "ERR" if detail.contains("exhausted") => {
            (Unroutable, "the stream has no ids left; trim it away", true)
        }
        "ERR" if detail.contains("AUTH") || detail.contains("invalid password") => {
            (Misconfigured, "check the user and the password", true)
        }
        "ERR" if detail.contains("DB index") => (Misconfigured, "it has no database of that number", true),
        "ERR" if detail.contains("unknown command") || detail.contains("syntax error") => {
            (Misconfigured, "it lacks a command; Redis 6.2 or later is needed", true)
        }
        _ => (Unexpected, "it answered with an error that was not expected", false),
    }
}

/// The client's error, without details that may quote a request.
fn shown(error: RedisError) -> RedisError {
    if error.kind() == Client::AuthenticationFailed {
        return (Client::AuthenticationFailed, "the server refused the credentials").into();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Effect;

    fn reply(code: &str, detail: &str) -> RedisError {
        let reply = format!("-{code} {detail}\r\n");
        match redis::parse_redis_value(reply.as_bytes()).and_then(redis::Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?} is no error"),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        use ErrorKind::{Misconfigured, Unavailable, Unexpected, Unroutable};
        let io = |kind: std::io::ErrorKind| RedisError::from(std::io::Error::from(kind));
        let client = |kind: Client| RedisError::from((kind, "words"));
        let (refused, unknown) = (Effect::NotApplied, Effect::Unknown);
        for (error, kind, effect) in [
            (io(std::io::ErrorKind::TimedOut), Unavailable, unknown),
            (io(std::io::ErrorKind::ConnectionReset), Unavailable, unknown),
            (client(Client::Parse), Unavailable, unknown),
            (client(Client::AuthenticationFailed), Misconfigured, refused),
            (client(Client::InvalidClientConfig), Misconfigured, refused),
            (client(Client::RESP3NotSupported), Misconfigured, refused),
            (client(Client::UnexpectedReturnType), Unexpected, unknown),
            (reply("OOM", "command not allowed when used memory > 'maxmemory'."), Unavailable, refused),
            (reply("LOADING", "Redis is loading the dataset in memory"), Unavailable, refused),
            (reply("READONLY", "You can't write against a read only replica."), Unavailable, refused),
            (reply("MASTERDOWN", "Link with MASTER is down"), Unavailable, refused),
            (reply("BUSY", "Redis is busy running a script"), Unavailable, refused),
            (reply("MISCONF", "Redis is configured to save RDB snapshots"), Unavailable, refused),
            (reply("NOREPLICAS", "Not enough good replicas to write."), Unavailable, refused),
            (reply("UNBLOCKED", "force unblock from blocking operation"), Unavailable, unknown),
            (reply("CLUSTERDOWN", "Hash slot not served"), Misconfigured, refused),
            (reply("TRYAGAIN", "Multiple keys request during rehashing"), Misconfigured, refused),
            (reply("MOVED", "1 127.0.0.1:7001"), Misconfigured, refused),
            (reply("ASK", "1 127.0.0.1:7001"), Misconfigured, refused),
            (reply("CROSSSLOT", "Keys in request don't hash to the same slot"), Misconfigured, refused),
            (reply("NOAUTH", "Authentication required."), Misconfigured, refused),
            (reply("WRONGPASS", "invalid username-password pair"), Misconfigured, refused),
            (reply("WRONGTYPE", "Operation against a key"), Unroutable, refused),
            (reply("NOSTREAM", ""), Unroutable, refused),
            (reply("NOPERM", "No permissions to access a key"), Unroutable, refused),
            (
                reply("NOPERM", "User ann has no permissions to run the 'xadd' command"),
                Misconfigured,
                refused,
            ),
            (reply("ERR", "max number of clients reached"), Unavailable, refused),
            (reply("ERR", "The stream has exhausted the last possible ID"), Unroutable, refused),
            (reply("ERR", "AUTH <password> called without any password"), Misconfigured, refused),
            (reply("ERR", "DB index is out of range"), Misconfigured, refused),
            (reply("ERR", "unknown command 'XADD'"), Misconfigured, refused),
            (reply("ERR", "syntax error"), Misconfigured, refused),
            (reply("ERR", "something else"), Unexpected, unknown),
            (reply("NEWCODE", "of a later version"), Unexpected, unknown),
        ] {
            let words = error.to_string();
            let told = describe(Failure::Request(error), Operation::Publish, "host:6379");
            assert_eq!((told.kind(), told.effect()), (kind, effect), "{words}");
            assert!(told.to_string().contains("host:6379"), "{told}");
        }
    }

    #[test]
    fn without_a_connection_nothing_was_sent() {
        for (error, kind) in [
            (
                RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
                ErrorKind::Unavailable,
            ),
            (reply("NEWCODE", "of a later version"), ErrorKind::Unavailable),
            (reply("WRONGPASS", "invalid username-password pair"), ErrorKind::Misconfigured),
        ] {
            let told = describe(Failure::Connect(error), Operation::Open, "host:6379");
            assert_eq!((told.kind(), told.effect()), (kind, Effect::NotApplied));
            assert!(told.to_string().contains("no connection to Redis at host:6379"), "{told}");
        }
    }
}
