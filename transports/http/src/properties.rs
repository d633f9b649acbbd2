//! A message as the headers of a request.

use crate::HttpConfig;
use crate::signature;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode_byte, utf8_percent_encode};
use pillarbox_core::{CloudEvents, Error, ErrorKind, Message};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// What stands before the name of a message's header that is no attribute of a CloudEvent, in lower case. All of the name but `a` to
/// `z`, `0` to `9`, `-`, `.` and `_` is percent-encoded, since HTTP knows no case in names; the value is encoded as those of attributes.
pub const HEADER_PREFIX: &str = "pillarbox-header-";

const IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The headers of a request, at `seconds` since 1970.
pub(crate) fn headers(config: &HttpConfig, message: &Message, seconds: u64) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(12 + message.headers().len());
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| foreign(name))?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| foreign(name.as_str()))?;
        headers.append(name, value);
        Ok::<_, Error>(())
    };
    for (name, value) in config.source.attributes(message) {
        match name {
            // The binding gives it HTTP's own field.
            "datacontenttype" => add(CONTENT_TYPE.as_str(), &value)?,
            _ => add(&format!("{}{name}", CloudEvents::HTTP_PREFIX), &CloudEvents::encoded(&value))?,
        }
        // Where tracing of HTTP itself looks for them.
        if matches!(name, "traceparent" | "tracestate") && value.is_ascii() {
            add(name, &value)?;
        }
    }
    for (name, value) in CloudEvents::other_headers(message) {
        add(&format!("{HEADER_PREFIX}{}", encoded_name(name)), &CloudEvents::encoded(value))?;
    }
    if !config.secrets.is_empty() {
        let id = message.id().to_string();
        add("webhook-id", &id)?;
        add("webhook-timestamp", &seconds.to_string())?;
        add("webhook-signature", &signature::sign(&config.secrets, &id, seconds, message.payload()))?;
    }
    if let Some(value) = &config.authorization {
        headers.insert(reqwest::header::AUTHORIZATION, value.clone());
    }
    Ok(headers)
}

fn encoded_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for part in utf8_percent_encode(name, IN_NAMES) {
        if part.starts_with('%') {
            encoded.push_str(part);
            continue;
        }
        for letter in part.bytes() {
            if letter.is_ascii_uppercase() {
                encoded.push_str(percent_encode_byte(letter));
            } else {
                encoded.push(char::from(letter));
            }
        }
    }
    encoded
}

fn foreign(name: &str) -> Error {
    Error::new(ErrorKind::Rejected, "publish")
        .describe(format!("the header {name:?} cannot be sent by HTTP"))
        .not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    #[test]
    fn everything_travels() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x22; 16]), created_at, "orders created")
            .key("order \u{fc}")
            .header("traceparent", "00-1")
            .header("X-Tenant \u{e9}", "a b")
            .header("host", "elsewhere")
            .header("Authorization", "Bearer forged")
            .content_type("text/plain")
            .payload("x")
            .unwrap();
        let config = HttpConfig::from_url(
            "https://host/?transport.source=/shop&transport.authorization=Bearer%20right\
             &transport.secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        .unwrap();
        let headers = headers(&config, &message, 1_614_265_330).unwrap();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "22222222-2222-2222-2222-222222222222"),
            ("ce-source", "/shop"),
            ("ce-type", "orders%20created"),
            ("ce-time", "2018-04-05T03:56:24Z"),
            ("ce-partitionkey", "order%20%C3%BC"),
            ("ce-traceparent", "00-1"),
            ("traceparent", "00-1"),
            ("ce-host", "elsewhere"),
            ("pillarbox-header-%58-%54enant%20%c3%a9", "a%20b"),
            ("pillarbox-header-%41uthorization", "Bearer%20forged"),
            ("content-type", "text/plain"),
            ("authorization", "Bearer right"),
            ("webhook-id", "22222222-2222-2222-2222-222222222222"),
            ("webhook-timestamp", "1614265330"),
        ] {
            assert_eq!(headers.get(name).unwrap_or_else(|| panic!("{name} in {headers:?}")), value);
        }
        assert!(headers["webhook-signature"].to_str().unwrap().starts_with("v1,"));
        assert!(headers.get("host").is_none() && headers.get("ce-datacontenttype").is_none());
        assert_eq!(headers.len(), 16);
    }
}
