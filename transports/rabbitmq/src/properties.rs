use crate::RabbitMqConfig;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use pillarbox_core::{CloudEvents, Error, ErrorKind, Message};

/// The header that carries the ordering key.
pub const KEY_HEADER: &str = "pillarbox-key";

const PERSISTENT: u8 = 2;

/// The properties of a message on the wire.
pub(crate) fn properties(config: &RabbitMqConfig, message: &Message) -> Result<BasicProperties, Error> {
    let mut headers = FieldTable::default();
    for (name, value) in message.headers().iter() {
        let name = ShortString::try_new(&**name).map_err(|_| too_long("the name of a header", name.len()))?;
        headers.insert(name, text(value));
    }
    if let Some(source) = &config.source {
        add_attributes(source, message, &mut headers)?;
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

/// All attributes but the content type, which has a property of its own.
fn add_attributes(source: &CloudEvents, message: &Message, headers: &mut FieldTable) -> Result<(), Error> {
    let prefix = CloudEvents::AMQP_PREFIX;
    for (name, _) in message.headers().iter() {
        if name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)) {
            let name: &str = name;
            return Err(rejected(format!("the header {name:?} belongs to CloudEvents in AMQP; rename it")));
        }
    }
    for (name, value) in source.attributes(message) {
        if name != "datacontenttype" {
            // Names of attributes have up to 20 letters.
            headers.insert(format!("{prefix}{name}").into(), text(&value));
        }
    }
    Ok(())
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn too_long(what: &str, size: usize) -> Error {
    rejected(format!("{what} has {size} bytes; AMQP takes 255"))
}

fn rejected(description: String) -> Error {
    Error::new(ErrorKind::Rejected, "publish").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    fn config(options: &str) -> RabbitMqConfig {
        RabbitMqConfig::from_url(&format!("amqp://broker/?{options}")).unwrap()
    }

    #[test]
    fn everything_travels() {
        let message =
            Message::given(MessageId::from_bytes([0x22; 16]), Timestamp::from_millis(5_900), "orders")
                .key("order-1")
                .header("traceparent", "00-1")
                .content_type("text/plain")
                .payload("x")
                .unwrap();
        let properties = properties(&config(""), &message).unwrap();
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
        let error = properties(&config(""), &builder.payload("").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }

    /// The example of the binding to AMQP, section 3.1.4, with an id of ours.
    #[test]
    fn the_example_of_cloudevents() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
            .content_type("application/json; charset=utf-8")
            .payload("{}")
            .unwrap();
        let properties = properties(&config("transport.source=/mycontext/subcontext"), &message).unwrap();
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json; charset=utf-8");
        let headers = properties.headers().as_ref().unwrap().inner();
        let expected = [
            ("cloudEvents:specversion", "1.0"),
            ("cloudEvents:type", "com.example.someevent"),
            ("cloudEvents:time", "2018-04-05T03:56:24Z"),
            ("cloudEvents:id", "11111111-1111-1111-1111-111111111111"),
            ("cloudEvents:source", "/mycontext/subcontext"),
        ];
        for (name, value) in expected {
            assert_eq!(headers.get(name), Some(&text(value)), "{name}");
        }
        assert_eq!(headers.len(), expected.len());
    }

    #[test]
    fn names_that_would_be_taken_for_attributes_are_rejected() {
        let given = || Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t");
        let message = given().header("cloudevents:id", "x").payload("").unwrap();
        let error = properties(&config("transport.source=/orders"), &message).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Rejected && error.to_string().contains("cloudevents:id"),
            "{error}"
        );
        assert!(properties(&config(""), &message).is_ok(), "without a source it is the producer's");
    }
}
