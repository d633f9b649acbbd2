//! The settings that are stored with an outbox: the first handle writes them, every later one must agree.

use crate::config::{MongoConfig, misconfigured};
use crate::layout;
use mongodb::bson::{Bson, Document, doc};
use pillarbox_core::{Error, HeadPolicy, Limits, StorageGuarantees};

/// The name of the hash that spreads keys over lanes.
const HASH: &str = "crc32";
const DEFAULT_LANES: u16 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) lanes: u16,
    pub(crate) head_policy: HeadPolicy,
    pub(crate) max_strikes: u32,
    pub(crate) limits: Limits,
    pub(crate) keep_published: bool,
}

/// What a new outbox gets: what is asked for, or the defaults.
pub(crate) fn wanted(config: &MongoConfig) -> Document {
    let strikes = config.max_strikes.unwrap_or(StorageGuarantees::DEFAULT_MAX_STRIKES);
    doc! {
        "layout": i64::from(layout::VERSION),
        "hash": HASH,
        "lanes": i64::from(config.lanes.unwrap_or(DEFAULT_LANES)),
        "head_policy": config.head_policy.unwrap_or_default().name(),
        "max_strikes": i64::from(strikes),
        "max_payload": i64::from(config.max_payload.unwrap_or_default().max_payload()),
        "keep_published": config.keep_published.unwrap_or(false),
    }
}

/// Reads what is stored and holds it against what is asked for.
pub(crate) fn agreed(config: &MongoConfig, stored: &Document) -> Result<Settings, Error> {
    let name = &config.name;
    let field = |field: &str| {
        stored.get(field).map(shown).ok_or_else(|| {
            misconfigured(format!(
                "`{name}.settings` has no field `{field}`; is this name used by something else?"
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
    let lanes = number("lanes", &field("lanes")?, 1..=u32::from(MongoConfig::HIGHEST_LANES))?;
    let settings = Settings {
        lanes: u16::try_from(lanes).unwrap_or(DEFAULT_LANES),
        head_policy: field("head_policy")?.parse()?,
        max_strikes: number("max_strikes", &field("max_strikes")?, 1..=u32::MAX)?,
        limits: Limits::with_max_payload(number("max_payload", &field("max_payload")?, 1..=u32::MAX)?)?,
        keep_published: field("keep_published")? == "true",
    };
    let asked = [
        ("lanes", config.lanes.map(|lanes| lanes.to_string())),
        ("head_policy", config.head_policy.map(|policy| policy.name().to_owned())),
        ("max_strikes", config.max_strikes.map(|strikes| strikes.to_string())),
        ("max_payload", config.max_payload.map(|limits| limits.max_payload().to_string())),
        ("keep_published", config.keep_published.map(|keep| keep.to_string())),
    ];
    for (of, asked) in asked {
        let found = field(of)?;
        if let Some(asked) = asked.filter(|asked| *asked != found) {
            return Err(misconfigured(format!(
                "`outbox.{of}` is {asked}, and outbox {name:?} is stored with {found}; leave the option out or set it so"
            )));
        }
    }
    Ok(settings)
}

fn shown(value: &Bson) -> String {
    match value {
        Bson::String(text) => text.clone(),
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => number.to_string(),
        other => other.to_string(),
    }
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

    #[test]
    fn what_is_stored_wins_and_a_disagreement_is_named() {
        let config = MongoConfig::from_url("mongodb://host/d?outbox.max_strikes=3").unwrap();
        let stored = |name: &str, value: Bson| {
            let mut stored = wanted(&config);
            stored.insert(name, value);
            stored
        };
        let settings = agreed(&config, &stored("lanes", Bson::Int32(8))).unwrap();
        assert_eq!((settings.lanes, settings.max_strikes), (8, 3));
        for (name, value, part) in [
            ("layout", Bson::Int32(2), "layout \"2\""),
            ("hash", Bson::from("fnv"), "hash \"fnv\""),
            ("lanes", Bson::Int32(9999), "`lanes`"),
            ("lanes", Bson::from("x"), "`lanes`"),
            ("max_strikes", Bson::Int64(5), "`outbox.max_strikes` is 3"),
            ("head_policy", Bson::from("stop"), "`head_policy`"),
            ("max_payload", Bson::Int64(0), "`max_payload`"),
        ] {
            let error = agreed(&config, &stored(name, value)).unwrap_err();
            assert_eq!(error.kind(), pillarbox_core::ErrorKind::Misconfigured);
            assert!(error.to_string().contains(part), "{error}");
        }
        let foreign = agreed(&config, &Document::new()).unwrap_err();
        assert!(foreign.to_string().contains("used by something else"), "{foreign}");
    }
}
