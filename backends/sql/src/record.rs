//! Rows to messages.

use crate::dialect::Dialect;
use bytes::Bytes;
use pillarbox_core::{Content, Entry, Headers, Limits, Message, MessageId, Text, Timestamp, Undecodable};
use std::collections::BTreeMap;
use std::fmt;

/// What is read of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// New ones, of which the outbox knows nothing yet: most messages, so every column counts.
    New,
    /// Everything.
    All,
    /// Everything but the payload.
    WithoutPayload,
}

impl Read {
    pub(crate) fn columns<D: Dialect>(self) -> String {
        let payload = if self == Self::WithoutPayload { "NULL" } else { "payload" };
        let known = match self {
            Self::New => D::BESIDE_NEW,
            Self::All | Self::WithoutPayload => {
                ", attempts, strikes, run_limit, state, due_at, ended_at, reason"
            }
        };
        format!(
            "seq, ordering_key, id, topic, headers, content_type, {payload}, created_at, deliver_at{known}"
        )
    }
}

/// Where a row lies in its table on PostgreSQL: its page, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    page: u32,
    number: u16,
}

impl Spot {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (page, number) = (bytes.first_chunk()?, bytes.get(4..)?.first_chunk()?);
        Some(Self { page: u32::from_be_bytes(*page), number: u16::from_be_bytes(*number) })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({},{})", self.page, self.number)
    }
}

/// A message with what the outbox knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) key: Option<Text>,
    pub(crate) attempts: u32,
    pub(crate) strikes: u32,
    pub(crate) run_limit: Option<u32>,
    pub(crate) state: i64,
    pub(crate) due_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) deliver_at: Option<i64>,
    /// Whether a key was held when new messages were read, so that some may have been left out; true where nobody asked.
    pub(crate) is_some_key_held: bool,
    pub(crate) spot: Option<Spot>,
    pub(crate) content: Content,
}

impl Row {
    pub(crate) fn read<D: Dialect>(row: &D::Row, read: Read) -> Result<Self, sqlx::Error> {
        let count = |column| -> Result<u32, sqlx::Error> {
            Ok(D::int(row, column)?.map_or(0, |value| u32::try_from(value).unwrap_or(0)))
        };
        let (key, content) = match D::text(row, 1) {
            Ok(key) => {
                let key = key.map(Text::from);
                (key.clone(), content::<D>(row, key))
            }
            Err(error) => (None, unreadable::<D>(row, format!("`ordering_key`: {error}"))),
        };
        let new = Self {
            seq: D::int(row, 0)?.unwrap_or_default(),
            content,
            key,
            attempts: 0,
            strikes: 0,
            run_limit: None,
            state: 0,
            due_at: None,
            ended_at: None,
            reason: None,
            deliver_at: D::int(row, 8)?,
            is_some_key_held: true,
            spot: None,
        };
        if read == Read::New {
            if D::BESIDE_NEW.is_empty() {
                return Ok(new);
            }
            let spot = D::bytes(row, 10)?.and_then(|bytes| Spot::read(&bytes));
            return Ok(Self { is_some_key_held: D::int(row, 9)?.is_some(), spot, ..new });
        }
        Ok(Self {
            attempts: count(9)?,
            strikes: count(10)?,
            run_limit: D::int(row, 11)?.map(|value| u32::try_from(value).unwrap_or(1).max(1)),
            state: D::int(row, 12)?.unwrap_or_default(),
            due_at: D::int(row, 13)?,
            ended_at: D::int(row, 14)?,
            reason: D::text(row, 15)?,
            ..new
        })
    }

    /// The ordering key, as a settlement sees it: what cannot be read as a message has none.
    pub(crate) fn readable_key(&self) -> Option<&Text> {
        match &self.content {
            Content::Message(message) => message.key(),
            Content::Undecodable(_) => None,
        }
    }

    pub(crate) fn size(&self) -> usize {
        match &self.content {
            Content::Message(message) => message.payload().len() + message.headers().size(),
            Content::Undecodable(record) => record.bytes.len(),
        }
    }

    pub(crate) fn into_entry(self) -> Entry {
        Entry { content: self.content, attempts: self.attempts, strikes: self.strikes }
    }
}

fn content<D: Dialect>(row: &D::Row, key: Option<Text>) -> Content {
    let message = message::<D>(row, key);
    message.map_or_else(|reason| unreadable::<D>(row, reason), Content::Message)
}

fn unreadable<D: Dialect>(row: &D::Row, reason: String) -> Content {
    Content::Undecodable(Undecodable { id: id::<D>(row), bytes: payload::<D>(row), reason: reason.into() })
}

fn id<D: Dialect>(row: &D::Row) -> Option<MessageId> {
    let id = D::bytes(row, 2).ok().flatten()?;
    id.try_into().ok().map(MessageId::from_bytes)
}

fn payload<D: Dialect>(row: &D::Row) -> Bytes {
    D::bytes(row, 6).ok().flatten().map(Bytes::from).unwrap_or_default()
}

fn message<D: Dialect>(row: &D::Row, key: Option<Text>) -> Result<Message, String> {
    let unreadable = |column: &'static str| move |error: sqlx::Error| format!("`{column}`: {error}");
    let id = id::<D>(row).ok_or("`id` has not 16 bytes")?;
    let created_at = D::int(row, 7).map_err(unreadable("created_at"))?.unwrap_or_default();
    let topic = D::text(row, 3).map_err(unreadable("topic"))?.ok_or("`topic` is null")?;
    let mut message = Message::given(id, Timestamp::from_micros(created_at), topic).limits(Limits::highest());
    if let Some(headers) = D::text(row, 4).map_err(unreadable("headers"))? {
        let pairs: BTreeMap<String, String> = serde_json::from_str(&headers)
            .map_err(|error| format!("`headers` is no JSON object of strings: {error}"))?;
        message = message.headers(pairs.into_iter().collect::<Headers>());
    }
    if let Some(content_type) = D::text(row, 5).map_err(unreadable("content_type"))? {
        message = message.content_type(content_type);
    }
    if let Some(key) = key {
        message = message.key(key);
    }
    if let Some(at) = D::int(row, 8).map_err(unreadable("deliver_at"))? {
        message = message.deliver_at(Timestamp::from_micros(at));
    }
    message.payload(payload::<D>(row)).map_err(|invalid| invalid.to_string())
}

/// The headers as they are stored; nothing if there are none.
pub(crate) fn headers_as_json(message: &Message) -> Option<String> {
    if message.headers().is_empty() {
        return None;
    }
    let pairs: BTreeMap<&str, &str> =
        message.headers().iter().map(|(name, value)| (&**name, &**value)).collect();
    // A map of strings is always JSON.
    serde_json::to_string(&pairs).ok()
}
