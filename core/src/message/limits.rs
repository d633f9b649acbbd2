use super::Message;
use crate::{Error, ErrorKind};

/// What a message may measure. The sizes of topics, keys and headers are fixed, so that every store and broker can hold
/// them; the payload's is a setting of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    max_payload: u32,
}

impl Limits {
    /// A topic has 1 to 255 bytes: what AMQP's routing keys hold.
    pub const TOPIC: usize = 255;
    /// A key has 1 to 512 bytes: enough for any natural key, and indexable everywhere.
    pub const KEY: usize = 512;
    /// A content type has 1 to 255 bytes.
    pub const CONTENT_TYPE: usize = 255;
    /// At most this many headers.
    pub const HEADERS: usize = 64;
    /// At most this many bytes of header names and values together.
    pub const HEADERS_SIZE: usize = 16 * 1024;
    /// The payload's limit where nothing else is said: 1 MiB, the default of Kafka and NATS.
    pub const DEFAULT_PAYLOAD: u32 = 1024 * 1024;
    /// The highest limit that an outbox may set: 15 MiB, so that a document of MongoDB (16 MiB) still holds the message.
    pub const HIGHEST_PAYLOAD: u32 = 15 * 1024 * 1024;

    /// Limits with payloads up to `bytes`.
    ///
    /// # Errors
    /// `Misconfigured` if `bytes` is zero or above [`Limits::HIGHEST_PAYLOAD`].
    pub fn with_max_payload(bytes: u32) -> Result<Self, Error> {
        if bytes == 0 || bytes > Self::HIGHEST_PAYLOAD {
            let highest = Self::HIGHEST_PAYLOAD;
            return Err(Error::new(ErrorKind::Misconfigured, "configure")
                .describe(format!("`max_payload` is {bytes} bytes; set it to 1 to {highest}")));
        }
        Ok(Self { max_payload: bytes })
    }

    /// The widest limits that an outbox may set: for who builds a message before knowing the outbox, which checks again.
    pub const fn highest() -> Self {
        Self { max_payload: Self::HIGHEST_PAYLOAD }
    }

    /// The largest payload, in bytes.
    pub const fn max_payload(self) -> u32 {
        self.max_payload
    }

    /// Checks a message that was built under other limits. Only the payload can differ.
    ///
    /// # Errors
    /// [`InvalidMessage::PayloadTooLarge`].
    pub fn check(self, message: &Message) -> Result<(), InvalidMessage> {
        self.check_payload(message.payload().len())
    }

    pub(super) fn check_payload(self, size: usize) -> Result<(), InvalidMessage> {
        if size > self.max_payload as usize {
            return Err(InvalidMessage::PayloadTooLarge { size, limit: self.max_payload as usize });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload: Self::DEFAULT_PAYLOAD }
    }
}

/// Why a message was not accepted. Each names the limit and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The topic is empty.
    EmptyTopic,
    /// The topic is longer than [`Limits::TOPIC`].
    TopicTooLong {
        /// Its size in bytes.
        size: usize,
    },
    /// The key is empty: leave it out instead.
    EmptyKey,
    /// The key is longer than [`Limits::KEY`].
    KeyTooLong {
        /// Its size in bytes.
        size: usize,
    },
    /// The content type is empty or longer than [`Limits::CONTENT_TYPE`].
    ContentType {
        /// Its size in bytes.
        size: usize,
    },
    /// More than [`Limits::HEADERS`] headers.
    TooManyHeaders {
        /// How many there are.
        count: usize,
    },
    /// The headers are larger than [`Limits::HEADERS_SIZE`] together.
    HeadersTooLarge {
        /// Their size in bytes.
        size: usize,
    },
    /// A header's name is empty.
    EmptyHeaderName,
    /// A topic, key, content type, header name or header value has a control character (line breaks among them), which
    /// HTTP and NATS would read as the end of the field.
    ControlCharacter {
        /// Which field; for headers the header's name.
        field: String,
    },
    /// The payload is larger than the outbox's limit.
    PayloadTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl std::fmt::Display for InvalidMessage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyTopic => write!(out, "the topic is empty; it has 1 to {} bytes", Limits::TOPIC),
            Self::TopicTooLong { size } => {
                write!(out, "the topic has {size} bytes; the limit is {}", Limits::TOPIC)
            }
            Self::EmptyKey => {
                write!(out, "the ordering key is empty; leave it out or give 1 to {} bytes", Limits::KEY)
            }
            Self::KeyTooLong { size } => {
                write!(out, "the ordering key has {size} bytes; the limit is {}", Limits::KEY)
            }
            Self::ContentType { size } => {
                write!(out, "the content type has {size} bytes; it has 1 to {}", Limits::CONTENT_TYPE)
            }
            Self::TooManyHeaders { count } => {
                write!(out, "there are {count} headers; the limit is {}", Limits::HEADERS)
            }
            Self::HeadersTooLarge { size } => {
                write!(out, "the headers have {size} bytes; the limit is {}", Limits::HEADERS_SIZE)
            }
            Self::EmptyHeaderName => write!(out, "a header has an empty name"),
            Self::ControlCharacter { field } => {
                write!(out, "{field} has a control character, such as a line break; remove it")
            }
            Self::PayloadTooLarge { size, limit } => {
                write!(
                    out,
                    "the payload has {size} bytes; the limit is {limit} (`max_payload`, at most {})",
                    Limits::HIGHEST_PAYLOAD
                )
            }
        }
    }
}

impl std::error::Error for InvalidMessage {}
