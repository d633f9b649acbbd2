//! Messages as CloudEvents 1.0.

use crate::{Error, ErrorKind, Message, Text, Timestamp};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Maps messages to the context attributes of [CloudEvents 1.0.2](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md),
/// for every transport: in binary mode each attribute is a header of the message on the wire, and the payload is the data.
///
/// | attribute | from |
/// | --- | --- |
/// | `specversion` | `1.0` |
/// | `id` | the message's id: `source` and `id` together are unique, and consumers deduplicate by them |
/// | `source` | this mapping's |
/// | `type` | the topic |
/// | `datacontenttype` | the content type, where there is one; bindings carry it in their own field for it |
/// | `time` | when the message was created |
/// | `partitionkey` | the ordering key, where there is one (the [partitioning extension](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/partitioning.md)) |
/// | `subject`, `dataschema`, `traceparent`, `tracestate` and all others | the header of that name |
///
/// A header becomes an attribute if the specification takes its name: 1 to 20 of `a` to `z` and `0` to `9`, and none of those above
/// that the message gives itself. The [others](Self::other_headers) travel beside the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvents {
    source: Text,
}

impl CloudEvents {
    /// What stands before an attribute's name in HTTP and NATS.
    pub const HTTP_PREFIX: &'static str = "ce-";
    /// What stands before an attribute's name in Kafka's headers.
    pub const KAFKA_PREFIX: &'static str = "ce_";
    /// What stands before an attribute's name in AMQP's application properties.
    pub const AMQP_PREFIX: &'static str = "cloudEvents:";

    /// The mapping of messages that come from `source`: a URI, or a relative one such as `/orders`.
    ///
    /// # Errors
    /// `Misconfigured` if it is empty, or holds what no URI holds.
    pub fn new(source: impl Into<Text>) -> Result<Self, Error> {
        let source = source.into();
        let foreign = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
        if source.is_empty() || source.bytes().any(foreign) {
            let source: &str = &source;
            return Err(Error::new(ErrorKind::Misconfigured, "open")
                .describe(format!(
                    "the source of CloudEvents is {source:?}; it is a URI or the end of one, such as `/orders`"
                ))
                .not_applied());
        }
        Ok(Self { source })
    }

    /// The attributes of a message, each name once: those of the table in its order, then those from headers by name. `time` is left
    /// out where the year has not four digits, which the format requires.
    pub fn attributes<'a>(&'a self, message: &'a Message) -> Vec<(&'a str, Cow<'a, str>)> {
        let mut attributes: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(7 + message.headers().len());
        attributes.push(("specversion", "1.0".into()));
        attributes.push(("id", message.id().to_string().into()));
        attributes.push(("source", (&*self.source).into()));
        attributes.push(("type", (&**message.topic()).into()));
        if let Some(content_type) = message.content_type() {
            attributes.push(("datacontenttype", (&**content_type).into()));
        }
        if let Some(time) = rfc3339(message.created_at()) {
            attributes.push(("time", time.into()));
        }
        if let Some(key) = message.key() {
            attributes.push(("partitionkey", (&**key).into()));
        }
        let from_headers = message.headers().iter().filter(|(name, value)| is_attribute(name, value));
        attributes.extend(from_headers.map(|(name, value)| (&**name, Cow::Borrowed(&**value))));
        attributes
    }

    /// The headers of a message that are no attributes, sorted by name.
    pub fn other_headers(message: &Message) -> impl Iterator<Item = (&Text, &Text)> {
        message.headers().iter().filter(|(name, value)| !is_attribute(name, value))
    }

    /// A value as the bindings to HTTP and NATS write it: percent-encoded where it is not visible ASCII, and `"` and `%` too.
    ///
    /// ```
    /// # use pillarbox_core::CloudEvents;
    /// assert_eq!(CloudEvents::encoded("Euro \u{20ac} \u{1f600}"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    /// ```
    pub fn encoded(value: &str) -> Cow<'_, str> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'%';
        if value.bytes().all(plain) {
            return value.into();
        }
        let mut encoded = String::with_capacity(value.len() + 8);
        for byte in value.bytes() {
            if plain(byte) {
                encoded.push(char::from(byte));
            } else {
                // Writing to a `String` cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded.into()
    }
}

/// What the message itself gives, and `data`, which formats use as the name of the payload.
const TAKEN: [&str; 8] =
    ["specversion", "id", "source", "type", "datacontenttype", "time", "partitionkey", "data"];

fn is_attribute(name: &str, value: &str) -> bool {
    let is_name = (1..=20).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    // These two may not be empty.
    let empty = value.is_empty() && matches!(name, "subject" | "dataschema");
    is_name && !TAKEN.contains(&name) && !empty
}

/// RFC 3339 in UTC; `None` where the year has not four digits. Days to dates as in Howard Hinnant's `civil_from_days`.
fn rfc3339(timestamp: Timestamp) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    let (days, rest) = (timestamp.as_micros().div_euclid(DAY), timestamp.as_micros().rem_euclid(DAY));
    // Years begin in March here, so that a leap day is the last of its year; eras have 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9_999).contains(&year) {
        return None;
    }
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros > 0 {
        let fraction = format!(".{micros:06}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageId;

    fn shown(attributes: &[(&str, Cow<'_, str>)]) -> Vec<String> {
        attributes
            .iter()
            .map(|(name, value)| format!("{}{name}: {value}", CloudEvents::HTTP_PREFIX))
            .collect()
    }

    /// The example of the HTTP binding, section 3.1.4, with an id of ours.
    #[test]
    fn the_example_of_the_specification() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
            .content_type("application/json; charset=utf-8")
            .payload("{}")
            .unwrap();
        let mapping = CloudEvents::new("/mycontext/subcontext").unwrap();
        assert_eq!(
            shown(&mapping.attributes(&message)),
            [
                "ce-specversion: 1.0",
                "ce-id: 11111111-1111-1111-1111-111111111111",
                "ce-source: /mycontext/subcontext",
                "ce-type: com.example.someevent",
                "ce-datacontenttype: application/json; charset=utf-8",
                "ce-time: 2018-04-05T03:56:24Z",
            ]
        );
    }

    #[test]
    fn headers_become_attributes_where_their_names_allow_it() {
        let message = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t")
            .key("order-1")
            .header("traceparent", "00-1")
            .header("subject", "orders/1")
            .header("dataschema", "")
            .header("type", "another")
            .header("data", "x")
            .header("X-Tenant", "acme")
            .header("a".repeat(21), "long")
            .payload("")
            .unwrap();
        let mapping = CloudEvents::new("https://shop.example/orders").unwrap();
        let attributes = shown(&mapping.attributes(&message));
        assert_eq!(
            attributes[4..],
            [
                "ce-time: 1970-01-01T00:00:00Z",
                "ce-partitionkey: order-1",
                "ce-subject: orders/1",
                "ce-traceparent: 00-1"
            ]
        );
        let others: Vec<_> = CloudEvents::other_headers(&message).map(|(name, _)| name.to_string()).collect();
        assert_eq!(others, ["X-Tenant", &"a".repeat(21), "data", "dataschema", "type"]);
    }

    /// Section 3.1.3.2 of the HTTP binding.
    #[test]
    fn values_are_encoded_as_the_specification_says() {
        assert_eq!(CloudEvents::encoded("Euro \u{20ac} \u{1f600}"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(CloudEvents::encoded("a\"b%c"), "a%22b%25c");
        assert!(matches!(CloudEvents::encoded("plain!~"), Cow::Borrowed("plain!~")));
    }

    #[test]
    fn a_source_is_a_uri() {
        for wrong in ["", "two words", "a\nb", "b\u{fc}cher", "{a}"] {
            let error = CloudEvents::new(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{wrong:?}");
        }
    }

    #[test]
    fn times() {
        for (micros, expected) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (-1, Some("1969-12-31T23:59:59.999999Z")),
            (951_782_400_000_000, Some("2000-02-29T00:00:00Z")),
            (951_868_800_120_000, Some("2000-03-01T00:00:00.12Z")),
            (4_107_542_399_000_000, Some("2100-02-28T23:59:59Z")),
            (4_107_542_400_000_000, Some("2100-03-01T00:00:00Z")),
            (253_402_300_799_999_999, Some("9999-12-31T23:59:59.999999Z")),
            (253_402_300_800_000_000, None),
            (-62_167_219_200_000_000, Some("0000-01-01T00:00:00Z")),
            (-62_167_219_200_000_001, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(micros)).as_deref(), expected, "{micros}");
        }
    }
}
