//! What lies in Redis, so that a program in another language can enqueue and an operator can look.
//!
//! # To enqueue
//!
//! Append a record to the list `{name}:lane:<n>` with `RPUSH`, inside the transaction that writes the business data, and
//! `PUBLISH {name}:wake ""` (on a cluster `SPUBLISH`) so that waiting relays hear of it. The lane of a message with an ordering key
//! is the CRC-32 (ISO-HDLC, as in zlib and PNG) of the key's bytes modulo the number of lanes, which is the field `lanes` of the
//! hash `{name}:settings`; one without a key may lie in any lane. A message with a time to be delivered at goes to the list
//! `{name}:inbox` instead. Check `{name}:settings` when the program starts: `layout` is `1` and `hash` is `crc32`.
//!
//! # A record
//!
//! Integers are big-endian; lengths are in bytes; nothing follows the payload.
//!
//! | offset | size | what |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags: 1 if the message has a time to be delivered at |
//! | 2 | 2 | its lane; for a message without a key any number |
//! | 4 | 16 | its id, a UUID |
//! | 20 | 8 | when it was created: microseconds since the Unix epoch, signed |
//! | 28 | 8 | when to deliver it, likewise; 0 without the flag |
//! | 36 | 2 | length of the ordering key, 0 for none |
//! | 38 | 2 | length of the topic |
//! | 40 | 2 | length of the content type, 0 for none |
//! | 42 | 2 | number of headers |
//! | 44 | 4 | length of the payload |
//! | 48 | | key, topic, content type; then per header the lengths of its name and value, 2 bytes each, name, value; then the payload |
//!
//! Texts are UTF-8. A record that breaks these rules is handed out as undecodable and becomes a dead letter; the others go on.
//!
//! A record that relays had trouble with carries an envelope in front: the bytes `E1 50 42 58`, then attempts, strikes and the longest
//! run that it may be part of (0 for any), 4 bytes each, then when it is due within its parked key, 8 bytes.
//!
//! # Keys
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `{name}:settings` | hash | layout, lanes, hash, head policy, strikes, largest payload |
//! | `{name}:lane:<n>` | list | records: of producers from 0, what comes back from 65536, parked keys from 1048576 |
//! | `{name}:inbox` | list | scheduled messages as they arrived |
//! | `{name}:later` | sorted set | numbers of waiting messages by due time |
//! | `{name}:dead` | sorted set | numbers of dead letters by time of death |
//! | `{name}:records`, `{name}:reasons` | hash | records and reasons by number |
//! | `{name}:ids` | sorted set | id, kind and number of what can be found by id |
//! | `{name}:state` | hash | the lanes' leases, the last fence, counters |
//! | `{name}:parked` | hash | the lanes of parked keys |
//! | `{name}:parked:units` | sorted set | the same lanes by number |
//! | `{name}:parked:due` | sorted set | lanes of parked keys by when they can be claimed |
//! | `{name}:suspects` | sorted set | lanes whose head goes only to a solo claim |
//! | `{name}:claim:<nonce>` | set | lanes of parked keys that one claim holds |
//! | `{name}:ended`, `{name}:ended:order` | hash, list | the last settlements of keys that are parked no more |
//! | `{name}:wake` | channel | a hint that messages were enqueued |
//!
//! # Changing the number of lanes
//!
//! The lane of a key must not change while messages of it are stored. Stop the producers, let the relays drain the outbox until
//! `stats` counts nothing pending, scheduled and claimed, stop the relays, redrive or discard the dead letters, delete
//! `{name}:settings`, then start everything with the new number.

use bytes::Bytes;
use pillarbox_core::{Headers, Limits, Message, MessageId, Text, Timestamp};

/// The version of the layout, in `{name}:settings` and as the first byte of every record.
pub const VERSION: u8 = 1;

/// The size of a record's fixed part.
pub const FIXED: usize = 48;

const HAS_DELIVER_AT: u8 = 1;
const ENVELOPE: [u8; 4] = [0xE1, b'P', b'B', b'X'];
const ENVELOPE_SIZE: usize = 24;

/// The lane of an ordering key.
///
/// ```
/// assert_eq!(pillarbox_redis::layout::lane_of("order-1", 32), 15);
/// ```
pub fn lane_of(key: &str, lanes: u16) -> u16 {
    // The remainder is below `lanes`, so the conversion cannot fail.
    u16::try_from(crc32fast::hash(key.as_bytes()) % u32::from(lanes.max(1))).unwrap_or_default()
}

/// The record of a message that lies in `lane`.
pub fn encode(message: &Message, lane: u16) -> Vec<u8> {
    let mut record = Vec::with_capacity(size(message));
    write(message, lane, |part| record.extend_from_slice(part));
    record
}

/// The size of a message's record.
pub(crate) fn size(message: &Message) -> usize {
    let key = message.key().map_or(0, |key| key.len());
    let content_type = message.content_type().map_or(0, |text| text.len());
    let headers = message.headers();
    let texts = key + message.topic().len() + content_type + headers.size() + 4 * headers.len();
    FIXED + texts + message.payload().len()
}

/// Writes the record of a message that lies in `lane`, part after part, to wherever it is wanted: a copy of it is half of what an
/// enqueue costs.
pub(crate) fn write(message: &Message, lane: u16, mut add: impl FnMut(&[u8])) {
    let key = message.key().map_or("", |key| key);
    let content_type = message.content_type().map_or("", |text| text);
    let (topic, headers, payload) = (message.topic(), message.headers(), message.payload());
    let mut fixed = [0; FIXED];
    fixed[0] = VERSION;
    fixed[1] = if message.deliver_at().is_some() { HAS_DELIVER_AT } else { 0 };
    fixed[2..4].copy_from_slice(&lane.to_be_bytes());
    fixed[4..20].copy_from_slice(&message.id().to_bytes());
    fixed[20..28].copy_from_slice(&message.created_at().as_micros().to_be_bytes());
    let deliver_at = message.deliver_at().unwrap_or(Timestamp::EPOCH);
    fixed[28..36].copy_from_slice(&deliver_at.as_micros().to_be_bytes());
    fixed[36..38].copy_from_slice(&short(key.len()));
    fixed[38..40].copy_from_slice(&short(topic.len()));
    fixed[40..42].copy_from_slice(&short(content_type.len()));
    fixed[42..44].copy_from_slice(&short(headers.len()));
    // A message's limits keep its payload far below 4 GiB.
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    fixed[44..48].copy_from_slice(&size.to_be_bytes());
    add(&fixed);
    add(key.as_bytes());
    add(topic.as_bytes());
    add(content_type.as_bytes());
    for (name, value) in headers.iter() {
        add(&short(name.len()));
        add(&short(value.len()));
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(payload);
}

/// A message's limits keep every text below 64 KiB.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// What relays know of a record, and what its producer wrote.
pub(crate) struct Opened {
    pub(crate) record: Bytes,
    pub(crate) attempts: u32,
    pub(crate) strikes: u32,
}

/// Takes the envelope off, if there is one.
pub(crate) fn open(stored: Bytes) -> Opened {
    if stored.len() < ENVELOPE_SIZE || stored[..4] != ENVELOPE {
        return Opened { record: stored, attempts: 0, strikes: 0 };
    }
    let number = |at: usize| u32::from_be_bytes([stored[at], stored[at + 1], stored[at + 2], stored[at + 3]]);
    let (attempts, strikes) = (number(4), number(8));
    Opened { record: stored.slice(ENVELOPE_SIZE..), attempts, strikes }
}

/// The id in a record, as far as one can be read.
pub(crate) fn id_of(record: &[u8]) -> Option<MessageId> {
    let bytes = record.get(4..20)?;
    (record[0] == VERSION).then_some(())?;
    Some(MessageId::from_bytes(bytes.try_into().ok()?))
}

/// The message in a record. Its texts and its payload are slices of the record.
///
/// # Errors
/// Says in words which rule of the layout is broken.
pub fn decode(record: &Bytes) -> Result<Message, String> {
    let mut reader = Reader { record, at: 0 };
    let version = reader.byte()?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, and only {VERSION} is known; is this relay older than its producer?"
        ));
    }
    let flags = reader.byte()?;
    let _lane = reader.short()?;
    let id = MessageId::from_bytes(reader.array()?);
    let created_at = Timestamp::from_micros(i64::from_be_bytes(reader.array()?));
    let deliver_at = Timestamp::from_micros(i64::from_be_bytes(reader.array()?));
    let key = reader.short()?;
    let topic = reader.short()?;
    let content_type = reader.short()?;
    let headers = reader.short()?;
    let payload = u32::from_be_bytes(reader.array()?) as usize;
    let key = reader.text(key, "key")?;
    let topic = reader.text(topic, "topic")?;
    let content_type = reader.text(content_type, "content type")?;
    if headers > Limits::HEADERS {
        return Err(format!("it has {headers} headers; the limit is {}", Limits::HEADERS));
    }
    let mut pairs = Vec::with_capacity(headers);
    for _ in 0..headers {
        let (name, value) = (reader.short()?, reader.short()?);
        pairs.push((reader.text(name, "header name")?, reader.text(value, "header value")?));
    }
    let payload = reader.bytes(payload)?;
    if reader.at != record.len() {
        return Err(format!("{} bytes follow its payload", record.len() - reader.at));
    }
    let mut message = Message::given(id, created_at, topic).limits(highest_limits());
    if !key.is_empty() {
        message = message.key(key);
    }
    if !content_type.is_empty() {
        message = message.content_type(content_type);
    }
    if !pairs.is_empty() {
        message = message.headers(pairs.into_iter().collect::<Headers>());
    }
    if flags & HAS_DELIVER_AT != 0 {
        message = message.deliver_at(deliver_at);
    }
    message.payload(payload).map_err(|invalid| invalid.to_string())
}

/// What is stored is delivered, also after an outbox's own limit was lowered.
fn highest_limits() -> Limits {
    Limits::with_max_payload(Limits::HIGHEST_PAYLOAD).unwrap_or_default()
}

struct Reader<'a> {
    record: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, size: usize) -> Result<std::ops::Range<usize>, String> {
        let range = self.at..self.at.saturating_add(size);
        if range.end > self.record.len() {
            return Err(format!("it ends at byte {}, within a field", self.record.len()));
        }
        self.at = range.end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let range = self.take(N)?;
        // `take` has answered a range of N bytes.
        Ok(self.record[range].try_into().unwrap_or([0; N]))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<usize, String> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    fn bytes(&mut self, size: usize) -> Result<Bytes, String> {
        let range = self.take(size)?;
        Ok(self.record.slice(range))
    }

    fn text(&mut self, size: usize, field: &str) -> Result<Text, String> {
        if size == 0 {
            return Ok(Text::new());
        }
        let bytes = self.bytes(size)?;
        Text::try_from(bytes).map_err(|_| format!("its {field} is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Message {
        Message::given(MessageId::from_bytes([7; 16]), Timestamp::from_micros(1_234), "orders.created")
            .key("order-1")
            .header("traceparent", "00-ab-cd-01")
            .header("empty", "")
            .content_type("application/json")
            .deliver_at(Timestamp::from_micros(-5))
            .payload(&b"\0\xff{}"[..])
            .unwrap()
    }

    #[test]
    fn the_layout_is_what_is_documented() {
        let record = encode(&full(), 0x0102);
        assert_eq!(record[..4], [1, 1, 1, 2]);
        assert_eq!(record[4..20], [7; 16]);
        assert_eq!(record[20..28], 1_234_i64.to_be_bytes());
        assert_eq!(record[28..36], (-5_i64).to_be_bytes());
        assert_eq!(record[36..48], [0, 7, 0, 14, 0, 16, 0, 2, 0, 0, 0, 4]);
        assert_eq!(&record[48..85], b"order-1orders.createdapplication/json");
        assert_eq!(&record[85..94], b"\0\x05\0\0empty");
        assert!(record.ends_with(b"00-ab-cd-01\0\xff{}"));
        // The check value of CRC-32, so that other languages can compare.
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(lane_of("123456789", 32), 0x26 % 32);
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let bare = Message::given(MessageId::from_bytes([0; 16]), Timestamp::EPOCH, "t").payload("").unwrap();
        for message in [full(), bare] {
            assert_eq!(decode(&encode(&message, 3).into()), Ok(message));
        }
    }

    #[test]
    fn texts_and_payload_are_slices_of_the_record() {
        let record = Bytes::from(encode(&full(), 0));
        let within = |part: &[u8]| record.as_ptr_range().contains(&part.as_ptr());
        let message = decode(&record).unwrap();
        assert!(within(message.payload()) && within(message.topic().as_bytes()));
        assert!(within(message.key().unwrap().as_bytes()));
    }

    #[test]
    fn every_cut_and_every_broken_rule_is_told() {
        let record = encode(&full(), 0);
        for size in 0..record.len() {
            let cut = Bytes::copy_from_slice(&record[..size]);
            assert!(decode(&cut).unwrap_err().contains("within a field"), "{size}");
        }
        let mut longer = record.clone();
        longer.push(0);
        assert!(decode(&longer.into()).unwrap_err().contains("follow its payload"));
        let mut newer = record.clone();
        newer[0] = 2;
        assert!(decode(&newer.into()).unwrap_err().contains("version 2"));
        let mut not_text = record.clone();
        not_text[48] = 0xFF;
        assert!(decode(&not_text.into()).unwrap_err().contains("key is not UTF-8"));
        let mut many = record;
        many[42] = 0xFF;
        assert!(decode(&many.into()).unwrap_err().contains("headers"));
    }

    #[test]
    fn an_envelope_is_taken_off() {
        let mut stored = ENVELOPE.to_vec();
        for number in [2_u32, 3, 1] {
            stored.extend(number.to_be_bytes());
        }
        stored.extend(0_u64.to_be_bytes());
        stored.extend(encode(&full(), 0));
        let opened = open(stored.into());
        assert_eq!((opened.attempts, opened.strikes), (2, 3));
        assert_eq!(id_of(&opened.record), Some(full().id()));
        assert_eq!(decode(&opened.record), Ok(full()));
        assert_eq!(open(Bytes::from_static(b"\xE1PBX")).record.len(), 4);
    }

    proptest! {
        #[test]
        fn whatever_is_stored_never_panics(mut bytes: Vec<u8>, change in any::<(usize, u8)>()) {
            let _ = decode(&open(bytes.clone().into()).record);
            let _ = id_of(&bytes);
            bytes = encode(&full(), 0);
            let at = change.0 % bytes.len();
            bytes[at] = change.1;
            let _ = decode(&bytes.into());
        }
    }
}
