//! The settings that are stored with an outbox: the first handle writes them, every later one must agree.

use crate::config::{SqlConfig, misconfigured};
use crate::dialect::Dialect;
use crate::layout::VERSION;
use pillarbox_core::{Error, HeadPolicy, Limits, StorageGuarantees};
use std::collections::HashMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) head_policy: HeadPolicy,
    pub(crate) max_strikes: u32,
    pub(crate) limits: Limits,
    pub(crate) keep_published: bool,
    /// How long a time a partition of published messages covers, if they are kept in partitions.
    pub(crate) published_partitions: Option<Duration>,
}

const NAMES: [&str; 5] =
    ["head_policy", "max_strikes", "max_payload", "keep_published", "published_partitions"];

/// What a new outbox gets: what is asked for, or the defaults.
pub(crate) fn wanted<D: Dialect>(config: &SqlConfig<D>) -> [(&'static str, String); 5] {
    let strikes = config.max_strikes.unwrap_or(StorageGuarantees::DEFAULT_MAX_STRIKES);
    [
        ("head_policy", config.head_policy.unwrap_or_default().name().to_owned()),
        ("max_strikes", strikes.to_string()),
        ("max_payload", config.max_payload.unwrap_or_default().max_payload().to_string()),
        ("keep_published", keeps(config).unwrap_or_default().to_string()),
        ("published_partitions", config.published_partitions.unwrap_or_default().as_secs().to_string()),
    ]
}

/// What is asked for: partitions are a way of keeping.
fn keeps<D: Dialect>(config: &SqlConfig<D>) -> Option<bool> {
    config.keep_published.or(config.published_partitions.map(|_| true))
}

/// The names of settings that are not stored yet.
pub(crate) fn are_missing(stored: &HashMap<String, String>) -> bool {
    NAMES.iter().any(|name| !stored.contains_key(*name))
}

/// Refuses a schema of another version.
pub(crate) fn check_version<D: Dialect>(
    config: &SqlConfig<D>,
    stored: &HashMap<String, String>,
) -> Result<(), Error> {
    let version = stored.get("schema_version").and_then(|version| version.parse::<usize>().ok());
    let place = &config.place;
    match version {
        Some(version) if version == VERSION => Ok(()),
        Some(version) if version > VERSION => Err(misconfigured(format!(
            "the outbox {:?} at {place} has the schema version {version}, and this program knows up to {VERSION}; update it",
            config.name
        ))),
        _ => Err(misconfigured(format!(
            "the outbox {:?} at {place} has the schema version {version:?}, and {VERSION} is needed; run `pillarbox migrate`",
            config.name
        ))),
    }
}

/// Holds what is stored against what is asked for.
pub(crate) fn agreed<D: Dialect>(
    config: &SqlConfig<D>,
    stored: &HashMap<String, String>,
) -> Result<Settings, Error> {
    let field = |field: &str| {
        stored.get(field).map(String::as_str).ok_or_else(|| {
            misconfigured(format!(
                "the outbox {:?} at {} lacks the setting {field:?}",
                config.name, config.place
            ))
        })
    };
    let asked = [
        ("head_policy", config.head_policy.map(|policy| policy.name().to_owned())),
        ("max_strikes", config.max_strikes.map(|strikes| strikes.to_string())),
        ("max_payload", config.max_payload.map(|limits| limits.max_payload().to_string())),
        ("keep_published", keeps(config).map(|keep| keep.to_string())),
        ("published_partitions", config.published_partitions.map(|length| length.as_secs().to_string())),
    ];
    for (name, asked) in asked {
        let stored = field(name)?;
        if let Some(asked) = asked.filter(|asked| asked != stored) {
            return Err(misconfigured(format!(
                "`outbox.{name}` is {asked:?}, and the outbox {:?} at {} has {stored:?}; leave the option out, or change the stored setting while no relay runs",
                config.name, config.place
            )));
        }
    }
    let wrong = |name: &str| misconfigured(format!("the stored setting {name:?} cannot be read"));
    Ok(Settings {
        head_policy: field("head_policy")?.parse()?,
        max_strikes: field("max_strikes")?.parse().map_err(|_| wrong("max_strikes"))?,
        limits: Limits::with_max_payload(field("max_payload")?.parse().map_err(|_| wrong("max_payload"))?)?,
        keep_published: field("keep_published")?.parse().map_err(|_| wrong("keep_published"))?,
        published_partitions: Some(
            field("published_partitions")?.parse().map_err(|_| wrong("published_partitions"))?,
        )
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs),
    })
}
