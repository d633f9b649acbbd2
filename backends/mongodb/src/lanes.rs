//! The document of a lane: its lease, and what its run holds.

use crate::layout::number;
use mongodb::bson::raw::RawDocument;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::options::Hint;
use pillarbox_core::{Nonce, Timestamp, Token};
use std::time::Duration;

/// A lane as a claim or a settlement reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) number: u16,
    /// Rises whenever the document changes; what was read is still so while it is the same.
    pub(crate) version: i64,
    pub(crate) fence: i64,
    pub(crate) nonce: Vec<u8>,
    pub(crate) held: bool,
    pub(crate) until: i64,
    pub(crate) claimed_at: i64,
    /// How many messages the run has.
    pub(crate) run: u32,
    pub(crate) solo: bool,
    pub(crate) renewed: bool,
    /// Nothing but its messages goes when the run is published as a whole.
    pub(crate) plain: bool,
    /// Its run is settled as published, and what is left of its messages is being deleted.
    pub(crate) clearing: bool,
    /// Handed back until then.
    pub(crate) not_before: i64,
    /// A suspect may lie in it.
    pub(crate) suspects: bool,
    pub(crate) settled_fence: i64,
    pub(crate) settled_nonce: Vec<u8>,
    /// The messages of the run, where they were asked for.
    pub(crate) members: Vec<Bson>,
    /// The parked keys that the run has messages of, where they were asked for.
    pub(crate) keys: Vec<String>,
    /// The store's time when it was read, where that was asked for.
    pub(crate) now: i64,
}

impl Lane {
    pub(crate) fn read(document: &RawDocument) -> Option<Self> {
        let mut lane = Self::default();
        for element in document.iter_elements() {
            let element = element.ok()?;
            let value = element.value().ok()?;
            let bytes = || value.as_binary().map(|binary| binary.bytes.to_vec()).unwrap_or_default();
            let long = || number(value).unwrap_or_default();
            let flag = || value.as_bool().unwrap_or_default();
            match element.key().as_str() {
                "_id" => lane.number = u16::try_from(number(value)?).ok()?,
                "version" => lane.version = long(),
                "fence" => lane.fence = long(),
                "nonce" => lane.nonce = bytes(),
                "held" => lane.held = flag(),
                "until" => lane.until = long(),
                "claimed_at" => lane.claimed_at = long(),
                "run" => lane.run = u32::try_from(long()).unwrap_or_default(),
                "solo" => lane.solo = flag(),
                "renewed" => lane.renewed = flag(),
                "plain" => lane.plain = flag(),
                "clearing" => lane.clearing = flag(),
                "not_before" => lane.not_before = long(),
                "suspects" => lane.suspects = flag(),
                "settled_fence" => lane.settled_fence = long(),
                "settled_nonce" => lane.settled_nonce = bytes(),
                "members" => {
                    let members = value.as_array()?.into_iter();
                    lane.members = members.filter_map(|member| Bson::try_from(member.ok()?).ok()).collect();
                }
                "keys" => {
                    let keys = value.as_array()?.into_iter();
                    lane.keys = keys.filter_map(|key| Some(key.ok()?.as_str()?.to_owned())).collect();
                }
                "now" => lane.now = value.as_datetime().map(micros_of).or_else(|| number(value))?,
                _ => {}
            }
        }
        Some(lane)
    }

    pub(crate) fn token(&self) -> Token {
        let nonce = <[u8; 16]>::try_from(&self.nonce[..]).unwrap_or_default();
        Token {
            unit: u64::from(self.number),
            fence: u64::try_from(self.fence).unwrap_or_default(),
            nonce: Nonce::from_bytes(nonce),
        }
    }

    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        !self.is_busy() && self.not_before <= now.as_micros()
    }

    /// Whether somebody has it: for a run, or to delete the messages of one.
    pub(crate) fn is_busy(&self) -> bool {
        self.held || self.clearing
    }

    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.is_busy() && self.until > now.as_micros()
    }

    pub(crate) fn is_held_by(&self, token: &Token) -> bool {
        self.held && self.token() == *token
    }

    pub(crate) fn was_settled_by(&self, token: &Token) -> bool {
        u64::try_from(self.settled_fence) == Ok(token.fence)
            && self.settled_nonce == token.nonce.as_bytes()
            && token.fence > 0
    }
}

/// What matches the lane that a token holds.
pub(crate) fn held_by(token: &Token) -> Document {
    doc! {
        "_id": i64::try_from(token.unit).unwrap_or(-1),
        "fence": i64::try_from(token.fence).unwrap_or(-1),
        "nonce": nonce(&token.nonce),
        "held": true,
    }
}

/// Messages by their documents' ids, and by their lane, so that a sharded collection is asked only where they are.
pub(crate) fn members_of(lane: u16, ids: Vec<Bson>) -> Document {
    doc! { "_id": { "$in": ids }, "lane": i64::from(lane) }
}

/// With the lane in the question, the server might rather walk through the lane.
pub(crate) fn by_document() -> Hint {
    Hint::Keys(doc! { "_id": 1 })
}

pub(crate) fn nonce(nonce: &Nonce) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: nonce.as_bytes().to_vec() }
}

/// An expression for the server's own time, in microseconds, moved by `offset`.
pub(crate) fn now(offset: i64) -> Document {
    doc! { "$add": [{ "$multiply": [{ "$toLong": "$$NOW" }, 1000_i64] }, offset] }
}

/// What frees a lane, as the fields of a `$set`.
pub(crate) fn freed() -> Document {
    doc! {
        "held": false, "plain": false, "clearing": false, "solo": false, "renewed": false,
        "run": 0_i64, "members": [], "keys": [],
    }
}

pub(crate) fn micros_of(time: mongodb::bson::DateTime) -> i64 {
    time.timestamp_millis().saturating_mul(1_000)
}

/// Durations in microseconds; longer ones than 30 years are as good as 30 years.
pub(crate) fn micros(duration: Duration) -> i64 {
    const LONGEST: i64 = 30 * 365 * 86_400 * 1_000_000;
    i64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}
