use super::{Headers, InvalidMessage, Limits, Message, MessageId, Text};
use crate::Timestamp;
use bytes::Bytes;

/// Builds a [`Message`]; [`payload`](Self::payload) checks everything at once and ends it.
#[derive(Clone, Debug)]
#[must_use = "a message is built by `payload`"]
pub struct MessageBuilder {
    message: Message,
    limits: Limits,
}

impl MessageBuilder {
    pub(super) fn new(id: MessageId, created_at: Timestamp, topic: Text) -> Self {
        let message = Message {
            id,
            topic,
            key: None,
            headers: Headers::new(),
            payload: Bytes::new(),
            content_type: None,
            created_at,
            deliver_at: None,
        };
        Self { message, limits: Limits::default() }
    }

    /// Sets the ordering key: messages of one key are delivered in order. 1 to 512 bytes; default: none.
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.message.key = Some(key.into());
        self
    }

    /// Adds a header, or replaces the one of that name. At most 64 of them, 16 KiB together.
    pub fn header(mut self, name: impl Into<Text>, value: impl Into<Text>) -> Self {
        self.message.headers.insert(name, value);
        self
    }

    /// Replaces all headers.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.message.headers = headers;
        self
    }

    /// Says what the payload is, as a media type such as `application/json`. Default: none.
    pub fn content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.message.content_type = Some(content_type.into());
        self
    }

    /// Delivers not before `at`, on the store's clock. Default: as soon as it is committed.
    pub fn deliver_at(mut self, at: Timestamp) -> Self {
        self.message.deliver_at = Some(at);
        self
    }

    /// Replaces the id: for a producer that repeats an enqueue, or that derives ids from its own.
    pub fn id(mut self, id: MessageId) -> Self {
        self.message.id = id;
        self
    }

    /// Checks against other limits than the default of 1 MiB of payload.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the payload, checks the whole message and ends the building.
    ///
    /// # Errors
    /// [`InvalidMessage`] names the limit that was passed.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Result<Message, InvalidMessage> {
        self.message.payload = payload.into();
        check(&self.message, self.limits)?;
        Ok(self.message)
    }
}

fn check(message: &Message, limits: Limits) -> Result<(), InvalidMessage> {
    match message.topic.len() {
        0 => return Err(InvalidMessage::EmptyTopic),
        1..=Limits::TOPIC => check_text("the topic", &message.topic)?,
        size => return Err(InvalidMessage::TopicTooLong { size }),
    }
    match message.key.as_ref().map(|key| (key, key.len())) {
        None => {}
        Some((_, 0)) => return Err(InvalidMessage::EmptyKey),
        Some((key, 1..=Limits::KEY)) => check_text("the ordering key", key)?,
        Some((_, size)) => return Err(InvalidMessage::KeyTooLong { size }),
    }
    match message.content_type.as_ref().map(|text| (text, text.len())) {
        None => {}
        Some((text, 1..=Limits::CONTENT_TYPE)) => check_text("the content type", text)?,
        Some((_, size)) => return Err(InvalidMessage::ContentType { size }),
    }
    check_headers(&message.headers)?;
    limits.check_payload(message.payload.len())
}

fn check_headers(headers: &Headers) -> Result<(), InvalidMessage> {
    if headers.len() > Limits::HEADERS {
        return Err(InvalidMessage::TooManyHeaders { count: headers.len() });
    }
    if headers.size() > Limits::HEADERS_SIZE {
        return Err(InvalidMessage::HeadersTooLarge { size: headers.size() });
    }
    for (name, value) in headers.iter() {
        if name.is_empty() {
            return Err(InvalidMessage::EmptyHeaderName);
        }
        if has_control(name) || has_control(value) {
            return Err(InvalidMessage::ControlCharacter { field: format!("the header {:?}", &**name) });
        }
    }
    Ok(())
}

fn check_text(field: &str, text: &str) -> Result<(), InvalidMessage> {
    if has_control(text) {
        return Err(InvalidMessage::ControlCharacter { field: field.to_owned() });
    }
    Ok(())
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(topic: &str) -> MessageBuilder {
        Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, topic.to_owned())
    }

    #[test]
    fn every_limit_holds_at_its_edge() {
        assert!(to(&"t".repeat(255)).key("k".repeat(512)).payload(vec![0; 1024 * 1024]).is_ok());
        assert_eq!(to("").payload(""), Err(InvalidMessage::EmptyTopic));
        assert_eq!(to(&"t".repeat(256)).payload(""), Err(InvalidMessage::TopicTooLong { size: 256 }));
        assert_eq!(to("t").key("").payload(""), Err(InvalidMessage::EmptyKey));
        assert_eq!(
            to("t").key("k".repeat(10_000)).payload(""),
            Err(InvalidMessage::KeyTooLong { size: 10_000 })
        );
        assert_eq!(to("t").content_type("").payload(""), Err(InvalidMessage::ContentType { size: 0 }));
        let limit = Limits::DEFAULT_PAYLOAD as usize;
        let refused = to("t").payload(vec![0; limit + 1]);
        assert_eq!(refused, Err(InvalidMessage::PayloadTooLarge { size: limit + 1, limit }));
    }

    #[test]
    fn header_limits() {
        let many: Headers = (0..65).map(|n| (format!("h{n}"), "v")).collect();
        assert_eq!(to("t").headers(many).payload(""), Err(InvalidMessage::TooManyHeaders { count: 65 }));
        let large = to("t").header("h", "v".repeat(16 * 1024)).payload("");
        assert_eq!(large, Err(InvalidMessage::HeadersTooLarge { size: 16 * 1024 + 1 }));
        assert_eq!(to("t").header("", "v").payload(""), Err(InvalidMessage::EmptyHeaderName));
        let broken = to("t").header("h", "a\nb").payload("").unwrap_err();
        assert!(
            broken.to_string().contains("\"h\"") && broken.to_string().contains("line break"),
            "{broken}"
        );
    }

    #[test]
    fn an_outbox_may_raise_the_payload_limit_to_fifteen_mebibytes() {
        let raised = Limits::with_max_payload(15 * 1024 * 1024).unwrap();
        assert!(to("t").limits(raised).payload(vec![0; 15 * 1024 * 1024]).is_ok());
        assert!(
            Limits::with_max_payload(15 * 1024 * 1024 + 1).unwrap_err().to_string().contains("max_payload")
        );
        assert!(Limits::with_max_payload(0).is_err());
    }
}
