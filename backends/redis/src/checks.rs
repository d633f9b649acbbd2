//! What a server must be, looked at when an outbox is opened.

use crate::config::misconfigured;
use crate::connection::{Connection, Failure, Target};
use crate::error;
use crate::reply::text;
use pillarbox_core::Error;
use redis::{ErrorKind, ServerErrorKind};
use std::collections::HashMap;

/// What differs between servers that can be used.
pub(crate) struct Server {
    pub(crate) has_sharded_channels: bool,
}

/// Asks the server about itself. By a script, so that a cluster asks the node that has the outbox; and by `INFO`, which
/// also those may call who may not read the configuration.
pub(crate) async fn check(connection: &Connection, state_key: &str, place: &str) -> Result<Server, Error> {
    let mut command = redis::cmd("EVAL");
    command.arg("return redis.call('INFO')").arg(1).arg(state_key);
    let answer = connection.run(&command).await.map_err(|failure| opening(failure, connection, place))?;
    judge(&text(answer, "open")?, place)
}

fn opening(failure: Failure, connection: &Connection, place: &str) -> Error {
    match &failure {
        Failure::Request(error)
            if error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
                && matches!(connection.target(), Target::Single(_)) =>
        {
            misconfigured(format!("Redis at {place} is part of a cluster; open it as `redis+cluster://`"))
        }
        _ => error::map(failure, "open", place),
    }
}

fn judge(info: &str, place: &str) -> Result<Server, Error> {
    let facts: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, fact)| (name, fact.trim()))
        .collect();
    let fact = |name: &str| facts.get(name).copied().unwrap_or_default();
    let version = fact("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < (6, 2) {
        return Err(misconfigured(format!(
            "Redis at {place} is version {version:?}; 6.2 or later is needed"
        )));
    }
    let policy = fact("maxmemory_policy");
    if policy != "noeviction" && !policy.is_empty() {
        return Err(misconfigured(format!(
            "Redis at {place} has `maxmemory-policy` {policy}, and would evict messages; set it with `CONFIG SET maxmemory-policy noeviction`, and in redis.conf"
        )));
    }
    if fact("aof_enabled") == "0" {
        tracing::warn!(
            place,
            "Redis has `appendonly` off: a restart loses the messages since its last snapshot; set it with `CONFIG SET appendonly yes`, and in redis.conf"
        );
    }
    Ok(Server { has_sharded_channels: major >= 7 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory_policy:{policy}\r\naof_enabled:1\r\n"
        )
    }

    #[test]
    fn servers_are_judged() {
        assert!(judge(&info("7.0.15", "noeviction"), "host:1").unwrap().has_sharded_channels);
        assert!(!judge(&info("6.2.0", "noeviction"), "host:1").unwrap().has_sharded_channels);
        assert!(judge(&info("10.1", "noeviction"), "host:1").is_ok());
        for (info, part) in [
            (info("6.0.9", "noeviction"), "6.2 or later"),
            (info("", "noeviction"), "6.2 or later"),
            (info("7.0.15", "allkeys-lru"), "CONFIG SET maxmemory-policy noeviction"),
            (info("7.0.15", "volatile-ttl"), "`maxmemory-policy` volatile-ttl"),
        ] {
            let Err(error) = judge(&info, "host:1") else { panic!("{part}") };
            assert!(error.to_string().contains(part) && error.to_string().contains("host:1"), "{error}");
        }
    }
}
