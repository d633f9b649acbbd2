//! What becomes of a message, in the relay's terms.

use crate::RedisStreamsConfig;
use crate::error::{self, Failure, Operation};
use pillarbox_core::{Error, ErrorKind, Message};
use redis::{RedisError, Value};

/// Whether the server can take a message, as far as is known here.
pub(crate) fn check(config: &RedisStreamsConfig, message: &Message) -> Result<(), Error> {
    let size = message.payload().len();
    if size > config.max_payload as usize {
        return Err(Error::new(ErrorKind::Rejected, Operation::Publish.name())
            .describe(format!(
                "the payload has {size} bytes; `transport.max_payload` is {}",
                config.max_payload
            ))
            .not_applied());
    }
    Ok(())
}

/// How far a unit of messages came: how many were added, and what the next one met.
pub(crate) struct Progress {
    pub(crate) added: usize,
    pub(crate) failure: Option<Error>,
}

/// The answer to one `XADD`.
pub(crate) fn of_one(config: &RedisStreamsConfig, answer: Value) -> Progress {
    match answer {
        Value::BulkString(_) | Value::SimpleString(_) => Progress { added: 1, failure: None },
        Value::Nil => failed(0, refused(config, "NOSTREAM")),
        Value::ServerError(error) => failed(0, described(config, error.into())),
        _ => failed(0, strange(config)),
    }
}

/// The answers to `MULTI` and to each `XADD` behind it, and the one to `EXEC`.
pub(crate) fn of_transaction(
    config: &RedisStreamsConfig,
    expected: usize,
    queued: Vec<Value>,
    executed: Value,
) -> Progress {
    if let Some(Value::ServerError(error)) = queued.first() {
        // Outside of a transaction each `XADD` was done by itself.
        let told = described(config, error.clone().into());
        return failed(0, Error::new(told.kind(), told.operation()).describe(told.description().to_owned()));
    }
    let refused = queued.into_iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    match (executed, refused) {
        (Value::Array(answers), None) if answers.len() == expected => {
            for (added, answer) in answers.into_iter().enumerate() {
                if let Some(error) = of_one(config, answer).failure {
                    return failed(added, error);
                }
            }
            Progress { added: expected, failure: None }
        }
        // Nothing of it was done, and the first refusal says why.
        (Value::ServerError(_), Some(refused)) => failed(0, described(config, refused.into()).not_applied()),
        (Value::ServerError(error), None) => failed(0, described(config, error.into())),
        _ => failed(0, strange(config)),
    }
}

/// The answer to the script that adds several.
pub(crate) fn of_several(config: &RedisStreamsConfig, expected: usize, answer: Value) -> Progress {
    let parts = match answer {
        Value::Array(parts) => parts,
        Value::ServerError(error) => return failed(0, described(config, error.into())),
        _ => return failed(0, strange(config)),
    };
    let mut parts = parts.into_iter();
    let added = match parts.next() {
        Some(Value::Int(added)) => usize::try_from(added).unwrap_or(0).min(expected),
        _ => return failed(0, strange(config)),
    };
    match parts.next() {
        Some(Value::BulkString(words)) => failed(added, refused(config, &String::from_utf8_lossy(&words))),
        _ if added == expected => Progress { added, failure: None },
        _ => failed(added, strange(config)),
    }
}

fn failed(added: usize, error: Error) -> Progress {
    Progress { added, failure: Some(error) }
}

fn described(config: &RedisStreamsConfig, error: RedisError) -> Error {
    error::describe(Failure::Request(error), Operation::Publish, &config.place())
}

/// An error that the script met, in the server's words.
fn refused(config: &RedisStreamsConfig, words: &str) -> Error {
    // Before version 7 they still have the protocol's own mark.
    let words = words.strip_prefix('-').unwrap_or(words);
    let (code, detail) = words.split_once(' ').unwrap_or((words, ""));
    let (kind, advice, refused) = error::answered(code, detail);
    let told = Error::new(kind, Operation::Publish.name())
        .describe(format!("Redis at {}: {advice}", config.place()));
    let told = if code == "NOSTREAM" { told } else { told.caused_by(words) };
    if refused { told.not_applied() } else { told }
}

fn strange(config: &RedisStreamsConfig) -> Error {
    Error::new(ErrorKind::Unexpected, Operation::Publish.name())
        .describe(format!("Redis at {} answered something that was not expected", config.place()))
}

/// Messages behind one of their key that failed: they were not sent, and share its kind.
pub(crate) fn behind(error: &Error) -> Error {
    Error::new(error.kind(), error.operation())
        .describe(format!("not sent, since one before it with its key failed: {}", error.description()))
        .not_applied()
}

/// The same error for another message, whose effect is as unknown.
pub(crate) fn repeated(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.operation());
    let told = match std::error::Error::source(error) {
        Some(cause) => told.describe(format!("{}: {cause}", error.description())),
        None => told.describe(error.description().to_owned()),
    };
    if error.effect() == pillarbox_core::Effect::NotApplied { told.not_applied() } else { told }
}

/// `WAIT` answered with fewer replicas than were asked for.
pub(crate) fn too_few_replicas(config: &RedisStreamsConfig, answer: Value) -> Option<Error> {
    match answer {
        Value::Int(replicas) if replicas >= i64::from(config.replicas) => None,
        Value::Int(replicas) => {
            Some(Error::new(ErrorKind::Unavailable, Operation::Publish.name()).describe(format!(
                "Redis at {} reached {replicas} replicas in time; `transport.replicas` is {}",
                config.place(),
                config.replicas
            )))
        }
        // The messages themselves were added before.
        Value::ServerError(error) => {
            let told = described(config, error.into());
            let unknown = Error::new(told.kind(), told.operation()).describe(told.description().to_owned());
            Some(unknown)
        }
        _ => Some(strange(config)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Effect;

    fn config() -> RedisStreamsConfig {
        RedisStreamsConfig::from_url("redis://:s3cret@host/").unwrap().replicas(2)
    }

    fn text(words: &str) -> Value {
        Value::BulkString(words.as_bytes().to_vec())
    }

    #[test]
    fn answers_of_the_script() {
        let kind =
            |progress: &Progress| progress.failure.as_ref().map(|error| (error.kind(), error.effect()));
        let all = of_several(&config(), 3, Value::Array(vec![Value::Int(3)]));
        assert_eq!((all.added, kind(&all)), (3, None));
        for (words, expected) in [
            ("OOM command not allowed", (ErrorKind::Unavailable, Effect::NotApplied)),
            ("-WRONGTYPE Operation against a key", (ErrorKind::Unroutable, Effect::NotApplied)),
            ("NOSTREAM", (ErrorKind::Unroutable, Effect::NotApplied)),
            ("NEW kind of error", (ErrorKind::Unexpected, Effect::Unknown)),
        ] {
            let some = of_several(&config(), 3, Value::Array(vec![Value::Int(1), text(words)]));
            assert_eq!((some.added, kind(&some)), (1, Some(expected)), "{words}");
        }
        for strange in [Value::Nil, Value::Array(vec![]), Value::Array(vec![Value::Int(2)]), Value::Okay] {
            let progress = of_several(&config(), 3, strange);
            assert_eq!(kind(&progress), Some((ErrorKind::Unexpected, Effect::Unknown)));
        }
        let more = of_several(&config(), 3, Value::Array(vec![Value::Int(9)]));
        assert_eq!(more.added, 3);
    }

    #[test]
    fn answers_of_a_transaction() {
        let kind =
            |progress: &Progress| progress.failure.as_ref().map(|error| (error.kind(), error.effect()));
        let server_error =
            |words: &str| redis::parse_redis_value(format!("-{words}\r\n").as_bytes()).unwrap();
        let queued = || vec![Value::Okay, Value::SimpleString("QUEUED".to_owned())];
        let done = of_transaction(&config(), 2, queued(), Value::Array(vec![text("1-0"), text("1-1")]));
        assert_eq!((done.added, kind(&done)), (2, None));
        let some = Value::Array(vec![
            text("1-0"),
            server_error("ERR The stream has exhausted the last possible ID"),
        ]);
        let some = of_transaction(&config(), 2, queued(), some);
        assert_eq!((some.added, kind(&some)), (1, Some((ErrorKind::Unroutable, Effect::NotApplied))));
        let refused = vec![Value::Okay, server_error("OOM command not allowed")];
        let refused = of_transaction(&config(), 2, refused, server_error("EXECABORT Transaction discarded"));
        assert_eq!((refused.added, kind(&refused)), (0, Some((ErrorKind::Unavailable, Effect::NotApplied))));
        let outside = vec![server_error("NOPERM no permissions to run the 'multi' command"), text("1-0")];
        let outside = of_transaction(&config(), 1, outside, server_error("ERR EXEC without MULTI"));
        assert_eq!(kind(&outside), Some((ErrorKind::Misconfigured, Effect::Unknown)));
        for strange in [Value::Nil, Value::Array(vec![text("1-0")]), server_error("EXECABORT")] {
            let progress = of_transaction(&config(), 2, queued(), strange);
            assert_eq!(kind(&progress), Some((ErrorKind::Unexpected, Effect::Unknown)));
        }
    }

    #[test]
    fn answers_of_wait() {
        assert!(too_few_replicas(&config(), Value::Int(2)).is_none());
        let error = too_few_replicas(&config(), Value::Int(1)).unwrap();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        assert!(error.to_string().contains("reached 1 replicas"), "{error}");
    }
}
