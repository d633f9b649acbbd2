use pillarbox_core::{InvalidMessage, Message, MessageBuilder};

/// Bytes of payload of every message.
pub const PAYLOAD: usize = 256;

/// How messages are keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Not at all.
    None,
    /// With so many keys in turn.
    Of(u32),
    /// Each with a key of its own.
    Each,
}

impl Keys {
    /// The cases that are measured.
    pub const CASES: [Self; 5] = [Self::None, Self::Each, Self::Of(10_000), Self::Of(100), Self::Of(1)];

    /// The name of the case.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "unkeyed",
            Self::Of(1) => "key-1",
            Self::Of(100) => "keys-100",
            Self::Of(10_000) => "keys-10000",
            Self::Of(_) => "keys",
            Self::Each => "key-each",
        }
    }

    /// Message number `number`, with an id, a topic, one header and 256 bytes of payload.
    ///
    /// # Errors
    /// None that these messages can have.
    pub fn message(self, number: u32) -> Result<Message, InvalidMessage> {
        with_payload(self.address(number))
    }

    /// The first `count` messages, in batches.
    ///
    /// # Errors
    /// None that these messages can have.
    pub fn batches(self, count: u32, batch: u32) -> Result<Vec<Vec<Message>>, InvalidMessage> {
        let numbers: Vec<u32> = (0..count).collect();
        let batch_of = |numbers: &[u32]| numbers.iter().map(|number| self.message(*number)).collect();
        numbers.chunks(batch.max(1) as usize).map(batch_of).collect()
    }

    pub(crate) fn address(self, number: u32) -> MessageBuilder {
        let message = Message::to("orders.created").header("content-language", "en");
        match self {
            Self::None => message,
            Self::Of(keys) => message.key(format!("order-{}", number % keys)),
            Self::Each => message.key(format!("order-{number}")),
        }
    }
}

impl std::fmt::Display for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::str::FromStr for Keys {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::CASES.map(Self::name).join(", ");
        let case = Self::CASES.into_iter().find(|case| case.name() == name);
        case.ok_or_else(|| format!("no such case; the cases are {}", known()))
    }
}

pub(crate) fn with_payload(message: MessageBuilder) -> Result<Message, InvalidMessage> {
    message.payload(bytes::Bytes::from_static(&[b'x'; PAYLOAD]))
}
