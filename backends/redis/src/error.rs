//! One table from the client's errors to what a relay does about them.

use crate::connection::Failure;
use pillarbox_core::{Error, ErrorKind};
use redis::{ErrorKind as Client, RedisError, ServerErrorKind as Server};

/// Maps a failure of `operation` at `place` (hosts and ports).
pub(crate) fn map(failure: Failure, operation: &'static str, place: &str) -> Error {
    match failure {
        Failure::Connect(error) => {
            let (kind, advice, _) = row(&error);
            let kind = if kind == ErrorKind::Unexpected { ErrorKind::Unavailable } else { kind };
            let words = format!("no connection to Redis at {place}: {advice}");
            Error::new(kind, operation).describe(words).caused_by(shown(error)).not_applied()
        }
        Failure::Request(error) => {
            let (kind, advice, refused) = row(&error);
            let mapped = Error::new(kind, operation)
                .describe(format!("Redis at {place}: {advice}"))
                .caused_by(shown(error));
            if refused { mapped.not_applied() } else { mapped }
        }
    }
}

/// The kind, what to do, and whether the request was certainly refused as a whole.
fn row(error: &RedisError) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match error.kind() {
        Client::Io if error.is_timeout() => (Unavailable, "it did not answer in time", false),
        Client::Io => (Unavailable, "is it running, and reachable?", false),
        Client::AuthenticationFailed => (Misconfigured, "check the user and the password", true),
        Client::InvalidClientConfig | Client::EmptySentinelList => (Misconfigured, "check the URL", true),
        Client::RESP3NotSupported => (Misconfigured, "leave `protocol=resp3` out of the URL", true),
        Client::MasterNameNotFoundBySentinel | Client::NoValidReplicasFoundBySentinel => {
            (Unavailable, "the sentinels name no primary; check the service's name and the sentinels", true)
        }
        Client::ClusterConnectionNotFound => (Unavailable, "no node of the cluster can be reached", true),
        Client::Server(kind) => server_row(kind, error),
        Client::Extension => extension_row(error.code().unwrap_or_default()),
        Client::Parse => (Unavailable, "the connection broke within an answer", false),
        _ => (Unexpected, "it answered something that was not expected", false),
    }
}

fn server_row(kind: Server, error: &RedisError) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match kind {
        Server::BusyLoading => (Unavailable, "it is loading its data", true),
        Server::MasterDown | Server::ReadOnly => {
            (Unavailable, "this one takes no writes; a failover may be under way", true)
        }
        Server::ClusterDown | Server::TryAgain | Server::Moved | Server::Ask => {
            (Unavailable, "the cluster is changing; open a cluster as `redis+cluster://`", true)
        }
        Server::CrossSlot => (
            Misconfigured,
            "all keys of a transaction must carry the outbox's tag, such as `{name}order:1`",
            true,
        ),
        Server::NoPerm => (
            Misconfigured,
            "the user may not do this; grant it the keys and channels `{name}:*`, and scripts",
            true,
        ),
        Server::ExecAbort => exec_row(error),
        Server::ResponseError => match error.detail().unwrap_or_default() {
            detail if detail.contains("max number of clients") => {
                (Unavailable, "it has no room for another client", true)
            }
            detail if detail.contains("AUTH") || detail.contains("invalid password") => {
                (Misconfigured, "check the user and the password", true)
            }
            detail if detail.contains("unknown command") => {
                (Misconfigured, "it lacks a command; Redis 6.2 or later is needed, 7.2 for `waitaof`", true)
            }
            _ => (Unexpected, "it answered with an error that was not expected", false),
        },
        _ => (Unexpected, "it answered with an error that was not expected", false),
    }
}

/// A transaction that was refused while it was queued, for the reason of its first refused command.
fn exec_row(error: &RedisError) -> (ErrorKind, &'static str, bool) {
    let refused = error.clone().into_server_errors();
    let first = refused.as_deref().and_then(|errors| errors.first()).map(|(_, error)| error);
    match first.map(|error| (error.kind(), error.code())) {
        Some((Some(Server::ExecAbort), _)) | None => {
            (ErrorKind::Unexpected, "it refused the transaction as a whole", true)
        }
        Some((Some(kind), _)) => {
            let (kind, advice, _) = server_row(kind, error);
            (kind, advice, true)
        }
        Some((None, code)) => {
            let (kind, advice, _) = extension_row(code);
            (kind, advice, true)
        }
    }
}

/// Errors that the client has no name for, by the server's own code.
fn extension_row(code: &str) -> (ErrorKind, &'static str, bool) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match code {
        "OOM" => (Unavailable, "its memory is full; raise `maxmemory`, or let the relays drain", true),
        "BUSY" => (Unavailable, "it is busy with somebody's script", true),
        "MISCONF" => (Unavailable, "it cannot write its data to disk, and refuses writes", true),
        "NOREPLICAS" => (Unavailable, "too few replicas are connected (`min-replicas-to-write`)", true),
        "UNBLOCKED" => (Unavailable, "a failover is under way", false),
        "NOAUTH" | "WRONGPASS" => (Misconfigured, "check the user and the password", true),
        "NOPERM" => (
            Misconfigured,
            "the user may not do this; grant it the keys and channels `{name}:*`, and scripts",
            true,
        ),
        "WRONGTYPE" => {
            (Misconfigured, "a key of this outbox holds something else; give the outbox another name", false)
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
    use redis::{ServerError, make_extension_error};

    fn answered(code: &str, detail: &str) -> RedisError {
        let reply = format!("-{code} {detail}\r\n");
        match redis::parse_redis_value(reply.as_bytes()).and_then(redis::Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?} is no error"),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        use ErrorKind::{Misconfigured, Unavailable, Unexpected};
        let io = |kind: std::io::ErrorKind| RedisError::from(std::io::Error::from(kind));
        let client = |kind: Client| RedisError::from((kind, "words"));
        let refused = Effect::NotApplied;
        let unknown = Effect::Unknown;
        for (error, kind, effect) in [
            (io(std::io::ErrorKind::TimedOut), Unavailable, unknown),
            (io(std::io::ErrorKind::ConnectionReset), Unavailable, unknown),
            (io(std::io::ErrorKind::BrokenPipe), Unavailable, unknown),
            (client(Client::AuthenticationFailed), Misconfigured, refused),
            (client(Client::InvalidClientConfig), Misconfigured, refused),
            (client(Client::EmptySentinelList), Misconfigured, refused),
            (client(Client::RESP3NotSupported), Misconfigured, refused),
            (client(Client::MasterNameNotFoundBySentinel), Unavailable, refused),
            (client(Client::NoValidReplicasFoundBySentinel), Unavailable, refused),
            (client(Client::ClusterConnectionNotFound), Unavailable, refused),
            (client(Client::Parse), Unavailable, unknown),
            (client(Client::UnexpectedReturnType), Unexpected, unknown),
            (client(Client::Client), Unexpected, unknown),
            (answered("LOADING", "loading the dataset"), Unavailable, refused),
            (answered("MASTERDOWN", "link with MASTER is down"), Unavailable, refused),
            (answered("READONLY", "against a read only replica"), Unavailable, refused),
            (answered("CLUSTERDOWN", "hash slot not served"), Unavailable, refused),
            (answered("TRYAGAIN", "during rehashing of slot"), Unavailable, refused),
            (answered("MOVED", "1 127.0.0.1:7001"), Unavailable, refused),
            (answered("ASK", "1 127.0.0.1:7001"), Unavailable, refused),
            (answered("CROSSSLOT", "keys in request"), Misconfigured, refused),
            (answered("NOPERM", "this user has no permissions"), Misconfigured, refused),
            (answered("NOAUTH", "authentication required"), Misconfigured, refused),
            (answered("WRONGPASS", "invalid pair"), Misconfigured, refused),
            (answered("ERR", "AUTH called without any password"), Misconfigured, refused),
            (answered("ERR", "max number of clients reached"), Unavailable, refused),
            (answered("ERR", "unknown command 'WAITAOF'"), Misconfigured, refused),
            (answered("ERR", "something else"), Unexpected, unknown),
            (answered("EXECABORT", "discarded because of previous errors"), Unexpected, refused),
            (answered("OOM", "command not allowed"), Unavailable, refused),
            (answered("BUSY", "running a script"), Unavailable, refused),
            (answered("MISCONF", "unable to persist"), Unavailable, refused),
            (answered("NOREPLICAS", "not enough good replicas"), Unavailable, refused),
            (answered("UNBLOCKED", "force unblock"), Unavailable, unknown),
            (answered("WRONGTYPE", "wrong kind of value"), Misconfigured, unknown),
            (answered("NEWCODE", "of a later version"), Unexpected, unknown),
        ] {
            let shown = error.to_string();
            let mapped = map(Failure::Request(error), "claim", "host:6379");
            assert_eq!((mapped.kind(), mapped.effect()), (kind, effect), "{shown}");
            assert!(mapped.to_string().contains("host:6379"), "{mapped}");
        }
    }

    #[test]
    fn a_transaction_is_refused_for_the_reason_of_its_command() {
        let error = answered("OOM", "command not allowed").into_server_errors().unwrap();
        let (_, first): &(usize, ServerError) = &error[0];
        assert_eq!(first.code(), "OOM");
        assert_eq!(extension_row(first.code()).0, ErrorKind::Unavailable);
        let unknown = make_extension_error("NEWCODE".to_owned(), None);
        assert_eq!(row(&unknown).0, ErrorKind::Unexpected);
    }

    #[test]
    fn without_a_connection_nothing_was_done() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = map(Failure::Connect(refused.into()), "open", "host:6379");
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        assert!(error.to_string().contains("no connection to Redis at host:6379"), "{error}");
    }
}
