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
}

impl Keys {
    /// The cases that are measured.
    pub const CASES: [Self; 3] = [Self::None, Self::Of(100), Self::Of(10_000)];

    /// The name of the case.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "unkeyed",
            Self::Of(100) => "keys-100",
            Self::Of(10_000) => "keys-10000",
            Self::Of(_) => "keys",
        }
    }

    /// Message number `number`, with an id, a topic, one header and 256 bytes of payload.
    ///
    /// # Errors
    /// None that these messages can have.
    pub fn message(self, number: u32) -> Result<Message, InvalidMessage> {
        with_payload(self.address(number))
    }

    pub(crate) fn address(self, number: u32) -> MessageBuilder {
        let message = Message::to("orders.created").header("content-language", "en");
        match self {
            Self::None => message,
            Self::Of(keys) => message.key(format!("order-{}", number % keys)),
        }
    }
}

pub(crate) fn with_payload(message: MessageBuilder) -> Result<Message, InvalidMessage> {
    message.payload(bytes::Bytes::from_static(&[b'x'; PAYLOAD]))
}
