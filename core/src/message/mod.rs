//! What is sent: [`Message`], its parts and its limits.

mod build;
mod headers;
mod limits;

pub use build::MessageBuilder;
pub use headers::Headers;
pub use limits::{InvalidMessage, Limits};

use crate::Timestamp;
use bytes::Bytes;
use std::fmt;
use uuid::Uuid;

/// Text that shares its buffer: a checked UTF-8 slice of [`Bytes`]. Cloning it copies no text.
pub type Text = bytestring::ByteString;

/// The identity of a message, stable over every redelivery: consumers deduplicate by it.
///
/// Made by the producer as a UUID v7. It is never an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Uuid);

impl MessageId {
    /// The id with these 16 bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the id, most significant first.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id as a UUID.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// A new id from the system's clock and randomness.
    #[cfg(feature = "clock")]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl From<Uuid> for MessageId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl std::str::FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One message, checked against [`Limits`] when it was built and immutable since.
///
/// Cloning shares the payload and every text; only the list of headers is copied.
///
/// ```
/// # use pillarbox_core::{Message, MessageId, Timestamp};
/// let message = Message::given(MessageId::from_bytes([7; 16]), Timestamp::from_millis(1), "orders.created")
///     .key("order-1")
///     .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
///     .content_type("application/json")
///     .payload(r#"{"total":12}"#)?;
/// assert_eq!(message.topic(), "orders.created");
/// # Ok::<(), pillarbox_core::InvalidMessage>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    id: MessageId,
    topic: Text,
    key: Option<Text>,
    headers: Headers,
    payload: Bytes,
    content_type: Option<Text>,
    created_at: Timestamp,
    deliver_at: Option<Timestamp>,
}

impl Message {
    /// Starts a message to `topic` with a new id, created now. Needs the feature `clock`.
    #[cfg(feature = "clock")]
    pub fn to(topic: impl Into<Text>) -> MessageBuilder {
        Self::given(MessageId::generate(), Timestamp::now(), topic)
    }

    /// Starts a message to `topic` whose id and time of creation are given: for replays, for tests, and where there is
    /// no system clock.
    pub fn given(id: MessageId, created_at: Timestamp, topic: impl Into<Text>) -> MessageBuilder {
        MessageBuilder::new(id, created_at, topic.into())
    }

    /// The id, stable over every redelivery.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Where it goes: routing key, topic, subject or stream. Not empty.
    pub fn topic(&self) -> &Text {
        &self.topic
    }

    /// The ordering key. Messages of one key are delivered in order; without a key there is no order.
    pub fn key(&self) -> Option<&Text> {
        self.key.as_ref()
    }

    /// The headers, sorted by name.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The payload, opaque to the outbox.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The media type of the payload, where the producer gave one.
    pub fn content_type(&self) -> Option<&Text> {
        self.content_type.as_ref()
    }

    /// When the producer made it, by the producer's clock: information, never an order.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Not claimable before this time of the store's clock.
    pub fn deliver_at(&self) -> Option<Timestamp> {
        self.deliver_at
    }
}

impl fmt::Debug for Message {
    /// Shows the payload's size, not its content: payloads hold people's data, and logs are read by others.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("headers", &self.headers.len())
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("content_type", &self.content_type)
            .field("created_at", &self.created_at)
            .field("deliver_at", &self.deliver_at)
            .finish()
    }
}
