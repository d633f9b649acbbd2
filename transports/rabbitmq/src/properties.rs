use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use pillarbox_core::{Error, ErrorKind, Message};

/// The header that carries the ordering key.
pub const KEY_HEADER: &str = "pillarbox-key";

const PERSISTENT: u8 = 2;

/// The properties of a message on the wire.
pub(crate) fn properties(message: &Message) -> Result<BasicProperties, Error> {
    let mut headers = FieldTable::default();
    for (name, value) in message.headers().iter() {
        let name = ShortString::try_new(&**name).map_err(|_| too_long("the name of a header", name.len()))?;
        headers.insert(name, text(value));
    }
    if let Some(key) = message.key() {
        headers.insert(KEY_HEADER.into(), text(key));
    }
    // A UUID and a number of seconds fit.
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.id().to_string().into())
        .with_timestamp(u64::try_from(message.created_at().as_millis() / 1_000).unwrap_or(0))
        .with_headers(headers);
    if let Some(content_type) = message.content_type() {
        let checked = ShortString::try_new(&**content_type);
        properties = properties
            .with_content_type(checked.map_err(|_| too_long("the content type", content_type.len()))?);
    }
    Ok(properties)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn too_long(what: &str, size: usize) -> Error {
    Error::new(ErrorKind::Rejected, "publish")
        .describe(format!("{what} has {size} bytes; AMQP takes 255"))
        .not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    #[test]
    fn everything_travels() {
        let message =
            Message::given(MessageId::from_bytes([0x22; 16]), Timestamp::from_millis(5_900), "orders")
                .key("order-1")
                .header("traceparent", "00-1")
                .content_type("text/plain")
                .payload("x")
                .unwrap();
        let properties = properties(&message).unwrap();
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(*properties.timestamp(), Some(5));
        assert_eq!(
            properties.message_id().as_ref().unwrap().as_str(),
            "22222222-2222-2222-2222-222222222222"
        );
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain");
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.get(KEY_HEADER), Some(&text("order-1")));
        assert_eq!(headers.get("traceparent"), Some(&text("00-1")));
    }

    #[test]
    fn a_header_name_that_amqp_does_not_take_is_rejected() {
        let builder = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t")
            .header("h".repeat(256), "v");
        let error = properties(&builder.payload("").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }
}
