use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox::{Headers, Limits, Message, MessageId, Text, Timestamp, parse_duration};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// One line, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: String,
    key: Option<String>,
    // Without this a payload of `null` would be no payload.
    #[serde(borrow, default, deserialize_with = "given")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    headers: Option<UniqueHeaders>,
    content_type: Option<String>,
    id: Option<String>,
    created_at: Option<Time>,
    deliver_at: Option<Time>,
    delay: Option<String>,
}

/// The message in a line, or what is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Message, String> {
    // A struct could be read from an array too, by place.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| describe(&error))?;
    let mut content_type = line.content_type;
    let payload = match (line.payload, line.payload_base64) {
        (Some(value), None) if value.get().starts_with('"') => {
            serde_json::from_str::<String>(value.get()).map_err(|error| error.to_string())?.into_bytes()
        }
        (Some(value), None) => {
            content_type.get_or_insert_with(|| "application/json".to_owned());
            value.get().as_bytes().to_vec()
        }
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|error| format!("`payload_base64` is no base64: {error}"))?
        }
        (None, None) => return Err("it has no payload; give `payload` or `payload_base64`".to_owned()),
        (Some(_), Some(_)) => return Err("it has `payload` and `payload_base64`; give one".to_owned()),
    };
    // The outbox may allow more than the default, and checks its own limit when it stores.
    let id = match line.id {
        Some(id) => id.parse().map_err(|error| format!("`id` is no UUID: {error}"))?,
        None => MessageId::generate(),
    };
    let created_at = line.created_at.map_or_else(now, |time| time.0);
    let mut builder = Message::given(id, created_at, line.topic).limits(Limits::highest());
    if let Some(key) = line.key {
        builder = builder.key(key);
    }
    if let Some(UniqueHeaders(headers)) = line.headers {
        builder = builder.headers(headers);
    }
    if let Some(content_type) = content_type {
        builder = builder.content_type(content_type);
    }
    if let Some(at) = due(line.deliver_at, line.delay.as_deref())? {
        builder = builder.deliver_at(at);
    }
    builder.payload(payload).map_err(|error| error.to_string())
}

fn due(deliver_at: Option<Time>, delay: Option<&str>) -> Result<Option<Timestamp>, String> {
    match (deliver_at, delay) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("it has `deliver_at` and `delay`; give one".to_owned()),
        (Some(time), None) => Ok(Some(time.0)),
        (None, Some(text)) => {
            let delay = parse_duration(text).ok_or_else(|| {
                format!("`delay` is {text:?}; it takes a duration such as `30s` or `500ms`")
            })?;
            Ok(Some(now().after(delay)))
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// A time in RFC 3339 as people write it, or in microseconds since 1970 as `stdout:` writes it.
struct Time(Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Time;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time in RFC 3339, or microseconds since 1970")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                let time: jiff::Timestamp =
                    text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Time(Timestamp::from_micros(time.as_microsecond())))
            }

            fn visit_i64<E: serde::de::Error>(self, microseconds: i64) -> Result<Time, E> {
                Ok(Time(Timestamp::from_micros(microseconds)))
            }

            fn visit_u64<E: serde::de::Error>(self, microseconds: u64) -> Result<Time, E> {
                let number = serde::de::Unexpected::Unsigned(microseconds);
                i64::try_from(microseconds)
                    .map(|microseconds| Time(Timestamp::from_micros(microseconds)))
                    .map_err(|_| E::invalid_value(number, &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The error without the line that serde_json counts: each text is one line, and the caller knows its number.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("{reason} (column {})", error.column())
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Headers in which a name that comes twice is an error: one of the two would be dropped in silence.
struct UniqueHeaders(Headers);

impl<'de> Deserialize<'de> for UniqueHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = UniqueHeaders;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueHeaders, A::Error> {
                let mut headers = Headers::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    let name = Text::from(name);
                    if headers.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format_args!("the header `{name}` comes twice")));
                    }
                }
                Ok(UniqueHeaders(headers))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn payloads_of_each_kind() {
        for (line, payload, content_type) in [
            (r#"{"topic":"t","payload":"a\nb"}"#, &b"a\nb"[..], None),
            (r#"{"topic":"t","payload":{"a": 1.0}}"#, br#"{"a": 1.0}"#, Some("application/json")),
            (r#"{"topic":"t","payload":null}"#, b"null", Some("application/json")),
            (r#"{"topic":"t","payload":[1],"content_type":"x/y"}"#, b"[1]", Some("x/y")),
            (r#"{"topic":"t","payload_base64":"AP8="}"#, b"\x00\xff", None),
        ] {
            let message = parse(line.as_bytes()).unwrap();
            assert_eq!(&message.payload()[..], payload, "{line}");
            assert_eq!(message.content_type().map(|text| &**text), content_type, "{line}");
        }
    }

    #[test]
    fn everything_else() {
        let line = r#"{"topic":"t","key":"k","payload":"","headers":{"b":"2","a":"1"},
            "id":"018f2f5e-7a4b-7c3d-8e9f-0123456789ab","deliver_at":"2030-01-31T08:00:00Z"}"#;
        let message = parse(line.as_bytes()).unwrap();
        assert_eq!(message.id().to_string(), "018f2f5e-7a4b-7c3d-8e9f-0123456789ab");
        assert_eq!(message.deliver_at().unwrap().as_millis(), 1_896_076_800_000);
        assert_eq!(message.headers().value("b").unwrap(), "2");
        let printed = br#"{"topic":"t","payload":"","created_at":5,"deliver_at":9}"#;
        let message = parse(printed).unwrap();
        assert_eq!((message.created_at().as_micros(), message.deliver_at().unwrap().as_micros()), (5, 9));
        let delayed = parse(br#"{"topic":"t","payload":"","delay":"1h"}"#).unwrap();
        let wait = delayed.deliver_at().unwrap().since(delayed.created_at()).as_secs();
        assert!((3_600..=3_601).contains(&wait), "{wait}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            (r#"{"topic":"t"}"#, "no payload"),
            (r#"{"payload":"x"}"#, "missing field `topic`"),
            (r#"{"topic":"","payload":"x"}"#, "the topic is empty"),
            (r#"{"topic":"t","payload":"x","payload_base64":""}"#, "give one"),
            (r#"{"topic":"t","payload_base64":"?"}"#, "no base64"),
            (r#"{"topic":"t","payload":"x","tpoic":1}"#, "unknown field `tpoic`"),
            (r#"{"topic":"t","topic":"u","payload":"x"}"#, "duplicate field `topic`"),
            (r#"{"topic":"t","payload":"x","headers":{"a":"1","a":"2"}}"#, "comes twice"),
            (r#"{"topic":"t","payload":"x","headers":{"a":1}}"#, "expected a string"),
            (r#"{"topic":"t","payload":"x","id":"1"}"#, "no UUID"),
            (r#"{"topic":"t","payload":"x","delay":"soon"}"#, "`delay` is \"soon\""),
            (r#"{"topic":"t","payload":"x","deliver_at":"tomorrow"}"#, "RFC 3339"),
            (r#"{"topic":"t","payload":"x","delay":"1s","deliver_at":"2030-01-31T08:00:00Z"}"#, "give one"),
            (r#"{"topic":"t","payload":"x"} {}"#, "trailing characters"),
            (r#"["t",null,"x"]"#, "no JSON object"),
            ("orders", "no JSON object"),
            ("{orders}", "column"),
        ] {
            let reason = parse(line.as_bytes()).unwrap_err();
            assert!(reason.contains(part), "{line}: {reason}");
        }
        assert!(parse(b"{\"topic\":\"\xff\",\"payload\":\"x\"}").is_err());
    }
}
