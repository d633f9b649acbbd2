//! What a server must be, looked at when the transport is opened.

use crate::config::misconfigured;
use crate::connection::{Connector, text};
use crate::error::{self, Failure, Operation};
use pillarbox_core::Error;
use std::collections::HashMap;

/// Asks the server about itself by `INFO`, which also those may call who may not read the configuration. Whoever may not even do
/// that is believed.
pub(crate) async fn check(connector: &Connector) -> Result<(), Error> {
    let link = connector.link(Operation::Open).await?;
    let place = connector.config().place();
    match connector.ask(&link, &redis::cmd("INFO")).await {
        Ok(answer) => judge(&text(answer)?, &place),
        Err(error) if error.code() == Some("NOPERM") => {
            tracing::warn!(
                place,
                "the user may not call `INFO`, so whether the server's settings are safe is not known"
            );
            Ok(())
        }
        Err(error) => Err(error::describe(Failure::Request(error), Operation::Open, &place).not_applied()),
    }
}

fn judge(info: &str, place: &str) -> Result<(), Error> {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    let facts: HashMap<&str, &str> = lines.map(|(name, fact)| (name, fact.trim())).collect();
    let fact = |name: &str| facts.get(name).copied().unwrap_or_default();
    let version = fact("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < (6, 2) {
        return Err(misconfigured(format!(
            "Redis at {place} is version {version:?}; 6.2 or later is needed"
        )));
    }
    if fact("redis_mode") == "cluster" {
        return Err(misconfigured(format!(
            "Redis at {place} is part of a cluster, where a key's messages have no order across streams; use a server of its own"
        )));
    }
    let policy = fact("maxmemory_policy");
    if policy.starts_with("allkeys") {
        return Err(misconfigured(format!(
            "Redis at {place} has `maxmemory-policy` {policy}, and would evict streams; set it with `CONFIG SET maxmemory-policy noeviction`, and in redis.conf"
        )));
    }
    if fact("aof_enabled") == "0" {
        tracing::warn!(
            place,
            "Redis has `appendonly` off: a restart loses the messages since its last snapshot; set it with `CONFIG SET appendonly yes`, and in redis.conf"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::ErrorKind;

    fn info(version: &str, mode: &str, policy: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\nredis_mode:{mode}\r\nmaxmemory_policy:{policy}\r\naof_enabled:1\r\n"
        )
    }

    #[test]
    fn servers_are_judged() {
        for policy in ["noeviction", "volatile-ttl", ""] {
            assert!(judge(&info("7.0.15", "standalone", policy), "host:1").is_ok(), "{policy}");
        }
        assert!(judge(&info("10.1", "standalone", "noeviction"), "host:1").is_ok());
        for (info, part) in [
            (info("6.0.9", "standalone", "noeviction"), "6.2 or later"),
            (info("", "standalone", "noeviction"), "6.2 or later"),
            (info("7.0.15", "cluster", "noeviction"), "part of a cluster"),
            (info("7.0.15", "standalone", "allkeys-lru"), "CONFIG SET maxmemory-policy noeviction"),
        ] {
            let error = judge(&info, "host:1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains(part) && error.to_string().contains("host:1"), "{error}");
        }
    }
}
