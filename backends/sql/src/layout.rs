//! How an outbox lies in its database, for producers in other languages.
//!
//! The tables are in `migrations/` of this crate, one folder per database, as plain SQL; `pillarbox migrate` applies them, and
//! so may any other tool. Their names begin with the outbox's name, `pillarbox` by default.
//!
//! # Enqueueing with plain SQL
//!
//! One `INSERT` into `pillarbox_message`, inside the transaction of the business data:
//!
//! ```sql
//! INSERT INTO pillarbox_message (id, topic, ordering_key, headers, payload, content_type)
//! VALUES ('018f4e5e-7b1c-7cc0-a0a0-0123456789ab', 'orders.created', 'order-1',
//!         '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}',
//!         '{"total":12}', 'application/json');
//! ```
//!
//! | column | holds | may be left out |
//! | --- | --- | --- |
//! | `id` | a UUID, version 7 by preference; 16 bytes in SQLite and MySQL (`x'018f…'`) | no |
//! | `topic` | where it goes, 1 to 255 bytes | no |
//! | `ordering_key` | messages of one key are delivered in order; 1 to 512 bytes | yes: no order |
//! | `headers` | a JSON object whose values are strings, at most 64 and 16 KiB | yes: none |
//! | `payload` | the bytes, at most the outbox's limit; SQLite takes no text here: `CAST('{"total":12}' AS BLOB)` | no |
//! | `content_type` | a media type, 1 to 255 bytes | yes |
//! | `created_at` | microseconds since 1970, by the producer's clock | yes: now |
//! | `deliver_at` | microseconds since 1970: not delivered before, by the database's clock | yes: at once |
//!
//! All other columns are the outbox's own and must be left out. A row that breaks a limit stops nobody: it is handed out as
//! undecodable, and buried with its reason. A producer's user needs the right to insert into this table; our own producers also read
//! `pillarbox_setting`. On PostgreSQL add `NOTIFY pillarbox` (the outbox's name) to the transaction, and waiting
//! relays wake at its commit.

use pillarbox_core::Message;

/// The version of the schema that this crate reads and writes.
pub const VERSION: usize = 1;

/// How many lanes there are: part of the schema, since the database computes the lane of a message.
pub(crate) const LANES: i64 = 16;

pub(crate) const INSERT: &str = "INSERT INTO {message} (id, topic, ordering_key, headers, payload, content_type, created_at, deliver_at) ";

/// States of a message.
pub(crate) mod state {
    pub(crate) const CAME_BACK: i64 = 2;
    pub(crate) const DEAD: i64 = 3;
    pub(crate) const DEAD_AND_HOLDS: i64 = 5;
    pub(crate) const SUSPECT: i64 = 6;
}

/// The names of an outbox's tables.
#[derive(Clone, Debug)]
pub struct Tables {
    name: String,
}

impl Tables {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Where hints of commits go, in a database that has channels.
    #[cfg(feature = "postgres")]
    pub(crate) fn channel(&self) -> String {
        self.name.clone()
    }

    /// Writes the names into a statement.
    pub(crate) fn fill(&self, sql: &str) -> String {
        let mut filled = String::with_capacity(sql.len() + 64);
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (table, after) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(&self.name);
            filled.push('_');
            filled.push_str(table);
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    /// A migration, for this name.
    pub(crate) fn rename(&self, migration: &str) -> String {
        migration.replace("pillarbox_", &format!("{}_", self.name))
    }
}

/// How many of these messages go into one statement: at least one.
pub(crate) fn fitting(messages: &[Message], most: usize, bytes: usize) -> usize {
    let mut weight = 0;
    let fits = |message: &&Message| {
        weight += message.payload().len() + message.headers().size() + 1_024;
        weight <= bytes
    };
    messages.iter().take(most).take_while(fits).count().max(1)
}

/// The run of a lane: the places of its messages in order, each as the difference to the one before, so that five hundred take
/// about one byte each.
pub(crate) fn encode_run(places: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = 0_i64;
    for place in places {
        let step = place.wrapping_sub(last);
        last = place;
        let mut rest = ((step << 1) ^ (step >> 63)).cast_unsigned();
        while rest >= 0x80 {
            bytes.push(low(rest) | 0x80);
            rest >>= 7;
        }
        bytes.push(low(rest));
    }
    bytes
}

/// The seven lowest bits.
fn low(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// The inverse of [`encode_run`]. What is cut short ends there.
pub(crate) fn decode_run(bytes: &[u8]) -> Vec<i64> {
    let (mut places, mut last) = (Vec::new(), 0_i64);
    let (mut value, mut shift) = (0_u64, 0);
    for byte in bytes {
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        shift += 7;
        if byte & 0x80 == 0 {
            let step = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            last = last.wrapping_add(step);
            places.push(last);
            (value, shift) = (0, 0);
        }
    }
    places
}

/// The places, as the inside of `IN (…)`. Numbers need no escaping.
pub(crate) fn in_list(places: &[i64]) -> String {
    use std::fmt::Write as _;
    let mut list = String::with_capacity(places.len() * 8);
    for place in places {
        let separator = if list.is_empty() { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(list, "{separator}{place}");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_as_they_were() {
        for run in [vec![], vec![1], vec![5, 6, 7, 900, 2, i64::MAX, i64::MIN, 0], (1..=1_000).collect()] {
            assert_eq!(decode_run(&encode_run(run.iter().copied())), run);
        }
        assert_eq!(encode_run(1..=500).len(), 500);
        assert_eq!(decode_run(&[0x80, 0x80]), Vec::<i64>::new());
        assert_eq!(decode_run(&[0xff; 40]), Vec::<i64>::new());
    }

    #[test]
    fn names_are_filled_in() {
        let tables = Tables::new("orders");
        assert_eq!(
            tables.fill("DELETE FROM {message} WHERE x IN (SELECT y FROM {lane})"),
            "DELETE FROM orders_message WHERE x IN (SELECT y FROM orders_lane)"
        );
        assert_eq!(tables.rename("CREATE TABLE pillarbox_lane"), "CREATE TABLE orders_lane");
    }
}
