//! The settings that are stored with an outbox: the first handle writes them, every later one must agree.

use crate::config::{RedisConfig, misconfigured};
use crate::layout;
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Limits, StorageGuarantees};
use redis::{FromRedisValue, Value};
use std::collections::HashMap;

/// The name of the hash that spreads keys over lanes.
const HASH: &str = "crc32";
const DEFAULT_LANES: u16 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) lanes: u16,
    pub(crate) head_policy: HeadPolicy,
    pub(crate) max_strikes: u32,
    pub(crate) limits: Limits,
}

/// What a new outbox gets: what is asked for, or the defaults.
pub(crate) fn wanted(config: &RedisConfig) -> [(&'static str, String); 6] {
    let strikes = config.max_strikes.unwrap_or(StorageGuarantees::DEFAULT_MAX_STRIKES);
    [
        ("layout", layout::VERSION.to_string()),
        ("hash", HASH.to_owned()),
        ("lanes", config.lanes.unwrap_or(DEFAULT_LANES).to_string()),
        ("head_policy", config.head_policy.unwrap_or_default().name().to_owned()),
        ("max_strikes", strikes.to_string()),
        ("max_payload", config.max_payload.unwrap_or_default().max_payload().to_string()),
    ]
}

/// Reads what is stored and holds it against what is asked for.
pub(crate) fn agreed(config: &RedisConfig, stored: Value) -> Result<Settings, Error> {
    let name = &config.name;
    let stored: HashMap<String, String> = HashMap::from_redis_value(stored).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "open")
            .describe(format!("the settings of outbox {name:?} cannot be read"))
            .caused_by(redis::RedisError::from(error))
    })?;
    let field = |field: &str| {
        stored.get(field).map(String::as_str).ok_or_else(|| {
            misconfigured(format!(
                "`{{{name}}}:settings` has no field `{field}`; is this name used by something else?"
            ))
        })
    };
    for (of, known) in [("layout", layout::VERSION.to_string()), ("hash", HASH.to_owned())] {
        let found = field(of)?;
        if found != known {
            return Err(misconfigured(format!(
                "outbox {name:?} is stored with {of} {found:?}, and this version knows {known:?} only; use a version that knows it"
            )));
        }
    }
    let settings = Settings {
        lanes: number("lanes", field("lanes")?, 1..=u32::from(RedisConfig::HIGHEST_LANES))?
            .try_into()
            .unwrap_or(DEFAULT_LANES),
        head_policy: field("head_policy")?.parse()?,
        max_strikes: number("max_strikes", field("max_strikes")?, 1..=u32::MAX)?,
        limits: Limits::with_max_payload(number("max_payload", field("max_payload")?, 1..=u32::MAX)?)?,
    };
    let asked = [
        ("lanes", config.lanes.map(|lanes| lanes.to_string())),
        ("head_policy", config.head_policy.map(|policy| policy.name().to_owned())),
        ("max_strikes", config.max_strikes.map(|strikes| strikes.to_string())),
        ("max_payload", config.max_payload.map(|limits| limits.max_payload().to_string())),
    ];
    for (of, asked) in asked {
        let found = field(of)?;
        if let Some(asked) = asked.filter(|asked| asked != found) {
            return Err(misconfigured(format!(
                "`outbox.{of}` is {asked}, and outbox {name:?} is stored with {found}; leave the option out or set it so"
            )));
        }
    }
    Ok(settings)
}

fn number(field: &str, text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, Error> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        misconfigured(format!(
            "the stored setting `{field}` is {text:?}; it takes {} to {}",
            range.start(),
            range.end()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(change: (&str, &str)) -> Value {
        let config = RedisConfig::from_url("redis://host/").unwrap();
        let mut pairs = Vec::new();
        for (name, value) in wanted(&config) {
            let value = if name == change.0 { change.1 } else { &value };
            pairs.push(Value::BulkString(name.into()));
            pairs.push(Value::BulkString(value.into()));
        }
        Value::Array(pairs)
    }

    #[test]
    fn what_is_stored_wins_and_a_disagreement_is_named() {
        let config = RedisConfig::from_url("redis://host/?outbox.max_strikes=3").unwrap();
        let settings = agreed(&config, stored(("lanes", "8"))).unwrap();
        assert_eq!((settings.lanes, settings.max_strikes), (8, 3));
        for (change, part) in [
            (("layout", "2"), "layout \"2\""),
            (("hash", "fnv"), "hash \"fnv\""),
            (("lanes", "9999"), "`lanes`"),
            (("lanes", "x"), "`lanes`"),
            (("max_strikes", "5"), "`outbox.max_strikes` is 3"),
            (("head_policy", "stop"), "`head_policy`"),
            (("max_payload", "0"), "`max_payload`"),
        ] {
            let error = agreed(&config, stored(change)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains(part), "{error}");
        }
        let foreign = agreed(&config, Value::Array(Vec::new())).unwrap_err();
        assert!(foreign.to_string().contains("used by something else"), "{foreign}");
    }
}
