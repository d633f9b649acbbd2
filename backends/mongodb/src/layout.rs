//! What lies in MongoDB, so that a program in another language can enqueue and an operator can look.
//!
//! # To enqueue
//!
//! Insert a document into the collection `name.messages`, within the transaction that writes the business data. `seq` is
//! `Timestamp(0, 0)`: the server fills it in, in the order of the inserts. The `lane` of a message with an ordering key is the
//! CRC-32 (ISO-HDLC, as in zlib and PNG) of the key's bytes modulo the number of lanes, which is the field `lanes` of the only
//! document in `name.settings`; one without a key may lie in any lane. Check that document when the program starts: `layout` is
//! 1 and `hash` is `crc32`.
//!
//! Commit with the write concern `majority`: a claim reads only what the majority has, and a failover loses nothing else.
//!
//! # A message
//!
//! | field | type | what |
//! | --- | --- | --- |
//! | `_id` | any, usually `ObjectId` | the document's own; never reused. Not the message's id, so that a repeated enqueue does not abort a transaction |
//! | `lane` | int | its lane |
//! | `at` | long | 0: due at once. Above 0: due then, in microseconds since the Unix epoch. -1: waits behind its key |
//! | `seq` | timestamp | its place in the order of inserts |
//! | `id` | UUID, binary subtype 4 | the message's id |
//! | `topic` | string | |
//! | `key` | string | the ordering key; absent for none |
//! | `headers` | document | names and values, both strings; absent for none |
//! | `payload` | binary subtype 0 | |
//! | `type` | string | the content type; absent for none |
//! | `created` | long | microseconds since the Unix epoch |
//! | `deliver` | long | when to deliver it, likewise; absent for at once. `at` is the same then, and at least 1 |
//!
//! A document that breaks these rules is handed out as undecodable and becomes a dead letter; the others go on. One without a right
//! `lane`, `at` or `seq` would never be found, so a validator on the collection refuses it.
//!
//! Relays add `attempts`, `strikes`, `limit` (the longest run that it may be part of), `suspect`, `reason`, and `wait` (when it is
//! due within its parked key).
//!
//! # Collections
//!
//! | collection | what |
//! | --- | --- |
//! | `name.settings` | one document: layout, hash, lanes, head policy, strikes, largest payload, retention |
//! | `name.messages` | everything that waits or is claimed |
//! | `name.lanes` | the lease of each lane: fence, nonce, deadline, and the messages of its run; `clearing` while those of a published run are being deleted |
//! | `name.parked` | keys whose head waits for a retry, or is dead and blocks: `until`, and `blocked` |
//! | `name.dead` | dead letters: the message as it was, `died` and `reason` |
//! | `name.published` | with retention: the message as it was, and `published` |
//!
//! # Sharding
//!
//! An outbox of one shard is the ordinary case. Where `name.messages` is sharded, use `{ lane: 1 }` as the shard key, so that a lane,
//! and with it every ordering key, lies on one shard: `seq` is an order within a shard only. Every question and every change of claims and
//! settlements names the lane, so that it goes to that shard alone; only looking for messages by their ids asks all. Leave the
//! other collections unsharded. A settlement message by message writes to the lane's document too, so it is a transaction of two shards where
//! the messages lie on another one than `name.lanes`; keep that collection on the shard that most messages are on.
//!
//! # Changing the number of lanes
//!
//! The lane of a key must not change while messages of it are stored. Stop the producers, let the relays drain the outbox until
//! `stats` counts nothing pending, scheduled and claimed, stop the relays, redrive or discard the dead letters, drop
//! `name.settings` and `name.lanes`, then start everything with the new number.

use bytes::Bytes;
use mongodb::bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Timestamp as Seq, oid::ObjectId};
use pillarbox_core::{Content, Headers, Limits, Message, MessageId, Text, Timestamp, Undecodable};

/// The version of the layout, in `name.settings`.
pub const VERSION: i32 = 1;
/// `at` of a message that is due at once.
pub(crate) const READY: i64 = 0;
/// `at` of a message that waits behind its parked key.
pub(crate) const PARKED: i64 = -1;

/// The lane of an ordering key.
///
/// ```
/// assert_eq!(pillarbox_mongodb::layout::lane_of("order-1", 32), 15);
/// ```
pub fn lane_of(key: &str, lanes: u16) -> u16 {
    // The remainder is below `lanes`, so the conversion cannot fail.
    u16::try_from(crc32fast::hash(key.as_bytes()) % u32::from(lanes.max(1))).unwrap_or_default()
}

/// The document of a message that lies in `lane`.
pub fn encode(message: &Message, lane: u16) -> RawDocumentBuf {
    let at = message.deliver_at().map_or(READY, |time| time.as_micros().max(1));
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), ObjectId::new());
    document.append(cstr!("lane"), i32::from(lane));
    document.append(cstr!("at"), at);
    document.append(cstr!("seq"), Seq { time: 0, increment: 0 });
    let id = Binary { subtype: BinarySubtype::Uuid, bytes: message.id().to_bytes().to_vec() };
    document.append(cstr!("id"), id);
    document.append(cstr!("topic"), &**message.topic());
    if let Some(key) = message.key() {
        document.append(cstr!("key"), &**key);
    }
    if !message.headers().is_empty() {
        let mut headers = RawDocumentBuf::new();
        for (name, value) in message.headers().iter() {
            // A message's names have no control characters, so no zero byte either.
            if let Ok(name) = <&mongodb::bson::raw::CStr>::try_from(&**name) {
                headers.append(name, &**value);
            }
        }
        document.append(cstr!("headers"), headers);
    }
    let payload =
        mongodb::bson::raw::RawBinaryRef { subtype: BinarySubtype::Generic, bytes: message.payload() };
    document.append(cstr!("payload"), payload);
    if let Some(content_type) = message.content_type() {
        document.append(cstr!("type"), &**content_type);
    }
    document.append(cstr!("created"), message.created_at().as_micros());
    if let Some(time) = message.deliver_at() {
        document.append(cstr!("deliver"), time.as_micros());
    }
    document
}

/// A stored message, with what relays know of it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) document_id: Bson,
    pub(crate) lane: u16,
    pub(crate) at: i64,
    pub(crate) seq: (u32, u32),
    pub(crate) key: Option<Text>,
    pub(crate) attempts: u32,
    pub(crate) strikes: u32,
    /// The longest run that it may be part of.
    pub(crate) limit: u32,
    /// When it is due within its parked key.
    pub(crate) wait: i64,
    pub(crate) reason: Option<Text>,
    pub(crate) died: Option<i64>,
    pub(crate) size: usize,
    pub(crate) content: Content,
}

impl Found {
    /// Whether it goes only to a solo claim.
    pub(crate) fn is_suspect(&self) -> bool {
        self.limit <= 1
    }
}

/// Reads a document. Texts and payload of the message are slices of it.
pub(crate) fn read(document: RawDocumentBuf) -> Found {
    let bytes = Bytes::from(document.into_bytes());
    let mut fields = Fields::default();
    let broken = match RawDocument::from_bytes(&*bytes) {
        Ok(raw) => fields.read(raw, &bytes).err(),
        Err(error) => Some(format!("it is no BSON: {error}")),
    };
    let id = fields.id;
    let key = fields.key.clone();
    let (attempts, strikes, limit) = (fields.attempts, fields.strikes, fields.limit);
    let found = Found {
        document_id: fields.document_id.take().unwrap_or(Bson::Null),
        lane: fields.lane,
        at: fields.at,
        seq: fields.seq,
        key,
        attempts,
        strikes,
        limit: if limit == 0 { u32::MAX } else { limit },
        wait: fields.wait,
        reason: fields.reason.take(),
        died: fields.died,
        size: bytes.len(),
        content: Content::Undecodable(Undecodable { id, bytes: Bytes::new(), reason: Text::new() }),
    };
    let message = match broken {
        Some(reason) => Err(reason),
        None => fields.message(),
    };
    let content = match message {
        Ok(message) => Content::Message(message),
        Err(reason) => {
            let reason = Text::from(format!("the document is no message: {reason}"));
            Content::Undecodable(Undecodable { id, bytes, reason })
        }
    };
    Found { content, ..found }
}

#[derive(Default)]
struct Fields {
    document_id: Option<Bson>,
    lane: u16,
    at: i64,
    seq: (u32, u32),
    id: Option<MessageId>,
    topic: Option<Text>,
    key: Option<Text>,
    headers: Option<Headers>,
    payload: Option<Bytes>,
    content_type: Option<Text>,
    created: Option<i64>,
    deliver: Option<i64>,
    attempts: u32,
    strikes: u32,
    limit: u32,
    wait: i64,
    reason: Option<Text>,
    died: Option<i64>,
}

impl Fields {
    /// Takes every field that can be read, also where another one is broken: the lane and the key must be known then too.
    fn read(&mut self, raw: &RawDocument, bytes: &Bytes) -> Result<(), String> {
        let mut broken = None;
        for element in raw.iter_elements() {
            let Ok(element) = element else { return Err("it ends within a field".to_owned()) };
            let name = element.key().as_str();
            let taken = match element.value() {
                Ok(value) => self.take(name, value, bytes),
                Err(_) => Err("cannot be read".to_owned()),
            };
            if let Err(reason) = taken {
                broken.get_or_insert(format!("its field `{name}` {reason}"));
            }
        }
        broken.map_or(Ok(()), Err)
    }

    fn take(&mut self, name: &str, value: RawBsonRef<'_>, bytes: &Bytes) -> Result<(), String> {
        let text = |value: RawBsonRef<'_>| {
            let text = value.as_str().ok_or("is no string")?;
            // The slice is within the document, and was checked as UTF-8 when it was read.
            Text::try_from(bytes.slice_ref(text.as_bytes())).map_err(|_| "is not UTF-8")
        };
        let long = |value: RawBsonRef<'_>| number(value).ok_or("is no whole number");
        match name {
            "_id" => self.document_id = Bson::try_from(value).ok(),
            "lane" => self.lane = u16::try_from(long(value)?).map_err(|_| "is no lane")?,
            "at" => self.at = long(value)?,
            "seq" => {
                let seq = value.as_timestamp().ok_or("is no timestamp")?;
                self.seq = (seq.time, seq.increment);
            }
            "id" => {
                let binary = value.as_binary().ok_or("is no UUID")?;
                let id = binary.bytes.try_into().map_err(|_| "is no UUID")?;
                self.id = Some(MessageId::from_bytes(id));
            }
            "topic" => self.topic = Some(text(value)?),
            "key" => self.key = Some(text(value)?),
            "headers" => {
                let document = value.as_document().ok_or("is no document")?;
                let mut pairs = Vec::new();
                for element in document.iter_elements() {
                    let element = element.map_err(|_| "cannot be read")?;
                    let name = bytes.slice_ref(element.key().as_str().as_bytes());
                    let name = Text::try_from(name).map_err(|_| "is not UTF-8")?;
                    let value = element.value().map_err(|_| "cannot be read")?;
                    pairs.push((name, text(value)?));
                }
                if pairs.len() > Limits::HEADERS {
                    return Err(format!("has {} names; the limit is {}", pairs.len(), Limits::HEADERS));
                }
                self.headers = Some(pairs.into_iter().collect());
            }
            "payload" => {
                let binary = value.as_binary().ok_or("is no binary")?;
                self.payload = Some(bytes.slice_ref(binary.bytes));
            }
            "type" => self.content_type = Some(text(value)?),
            "created" => self.created = Some(long(value)?),
            "deliver" => self.deliver = Some(long(value)?),
            "attempts" => self.attempts = counter(value),
            "strikes" => self.strikes = counter(value),
            "limit" => self.limit = counter(value),
            "wait" => self.wait = long(value)?,
            "reason" => self.reason = Some(text(value)?),
            "died" => self.died = Some(long(value)?),
            _ => {}
        }
        Ok(())
    }

    fn message(self) -> Result<Message, String> {
        let missing = |name: &str| format!("it has no field `{name}`");
        let id = self.id.ok_or_else(|| missing("id"))?;
        let created = self.created.ok_or_else(|| missing("created"))?;
        let topic = self.topic.ok_or_else(|| missing("topic"))?;
        let payload = self.payload.ok_or_else(|| missing("payload"))?;
        // What is stored is delivered, also after an outbox's own limit was lowered.
        let mut message =
            Message::given(id, Timestamp::from_micros(created), topic).limits(Limits::highest());
        if let Some(key) = self.key {
            message = message.key(key);
        }
        if let Some(content_type) = self.content_type {
            message = message.content_type(content_type);
        }
        if let Some(headers) = self.headers {
            message = message.headers(headers);
        }
        if let Some(time) = self.deliver {
            message = message.deliver_at(Timestamp::from_micros(time));
        }
        message.payload(payload).map_err(|invalid| invalid.to_string())
    }
}

/// A whole number, in any of the types that languages write it in.
#[allow(
    clippy::cast_possible_truncation,
    reason = "checked to be whole, and a conversion from a float saturates"
)]
pub(crate) fn number(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int64(number) => Some(number),
        RawBsonRef::Int32(number) => Some(i64::from(number)),
        RawBsonRef::Double(number) if number.fract() == 0.0 => Some(number as i64),
        _ => None,
    }
}

/// The same for a value that stands alone.
pub(crate) fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int64(number) => Some(*number),
        Bson::Int32(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn counter(value: RawBsonRef<'_>) -> u32 {
    number(value).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Document, doc};
    use proptest::prelude::*;

    fn full() -> Message {
        Message::given(MessageId::from_bytes([7; 16]), Timestamp::from_micros(1_234), "orders.created")
            .key("order-1")
            .header("traceparent", "00-ab-cd-01")
            .header("$odd.name", "")
            .content_type("application/json")
            .deliver_at(Timestamp::from_micros(-5))
            .payload(&b"\0\xff{}"[..])
            .unwrap()
    }

    fn as_document(raw: &RawDocumentBuf) -> Document {
        Document::try_from(raw).unwrap()
    }

    #[test]
    fn the_layout_is_what_is_documented() {
        let document = as_document(&encode(&full(), 3));
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] };
        let payload = Binary { subtype: BinarySubtype::Generic, bytes: b"\0\xff{}".to_vec() };
        let expected = doc! {
            "_id": document.get_object_id("_id").unwrap(),
            "lane": 3, "at": 1_i64, "seq": Seq { time: 0, increment: 0 }, "id": id, "topic": "orders.created",
            "key": "order-1", "headers": { "$odd.name": "", "traceparent": "00-ab-cd-01" }, "payload": payload,
            "type": "application/json", "created": 1_234_i64, "deliver": -5_i64,
        };
        assert_eq!(document, expected);
        // The check value of CRC-32, so that other languages can compare.
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(lane_of("123456789", 32), 0x26 % 32);
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let bare = Message::given(MessageId::from_bytes([0; 16]), Timestamp::EPOCH, "t").payload("").unwrap();
        for message in [full(), bare] {
            let found = read(encode(&message, 3));
            assert_eq!((found.lane, found.attempts, found.strikes, found.limit), (3, 0, 0, u32::MAX));
            assert_eq!(found.key.as_ref(), message.key());
            let Content::Message(back) = found.content else { panic!("{found:?}") };
            assert_eq!(back, message);
        }
    }

    #[test]
    fn every_broken_field_is_named_and_the_rest_is_known() {
        for (name, value) in [
            ("id", Bson::from("x")),
            ("topic", Bson::from(1)),
            ("headers", Bson::from("x")),
            ("payload", Bson::from("x")),
            ("created", Bson::from(1.5)),
            ("deliver", Bson::from("soon")),
            ("type", Bson::from(1)),
        ] {
            let mut document = as_document(&encode(&full(), 3));
            document.insert(name, value);
            let found = read(RawDocumentBuf::try_from(document).unwrap());
            assert_eq!((found.lane, found.key.as_deref()), (3, Some("order-1")), "{name}");
            let Content::Undecodable(undecodable) = found.content else { panic!("{name}") };
            assert!(undecodable.reason.contains(&format!("`{name}`")), "{}", &*undecodable.reason);
        }
        for name in ["id", "topic", "payload", "created"] {
            let mut document = as_document(&encode(&full(), 3));
            document.remove(name);
            let found = read(RawDocumentBuf::try_from(document).unwrap());
            let Content::Undecodable(undecodable) = found.content else { panic!("{name}") };
            assert!(undecodable.reason.contains(&format!("no field `{name}`")), "{}", &*undecodable.reason);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_stored_never_panics(change in any::<(usize, u8)>()) {
            let mut bytes = encode(&full(), 0).into_bytes();
            let at = change.0 % bytes.len();
            bytes[at] = change.1;
            if let Ok(document) = RawDocumentBuf::from_bytes(bytes) {
                let _ = read(document);
            }
        }
    }
}
