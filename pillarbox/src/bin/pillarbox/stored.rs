//! Stored messages as JSON and as lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox::{Content, Stored, Timestamp};
use serde_json::{Map, Value, json};

/// Everything about a stored message, the payload as text where it is text, else in base64: what `pillarbox enqueue` reads,
/// and beside it what the store knows.
pub(crate) fn object(stored: &Stored) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            fields.insert(name.to_owned(), value);
        }
    };
    match &stored.content {
        Content::Message(message) => {
            put("id", json!(message.id().to_string()));
            put("topic", json!(&**message.topic()));
            put("key", json!(message.key().map(|key| &**key)));
            let headers = message.headers().iter().map(|(name, value)| (name.to_string(), json!(&**value)));
            put("headers", Value::Object(headers.collect()));
            put("content_type", json!(message.content_type().map(|text| &**text)));
            let (name, payload) = payload(message.payload());
            put(name, payload);
            put("created_at", json!(time(message.created_at())));
            put("deliver_at", json!(message.deliver_at().map(time)));
        }
        Content::Undecodable(undecodable) => {
            put("id", json!(undecodable.id.map(|id| id.to_string())));
            put("undecodable", json!(&*undecodable.reason));
            put("stored_base64", json!(STANDARD.encode(&undecodable.bytes)));
        }
    }
    put("attempts", json!(stored.attempts));
    put("strikes", json!(stored.strikes));
    put("due_at", json!(stored.due_at.map(time)));
    put("died_at", json!(stored.died_at.map(time)));
    put("reason", json!(stored.reason.as_deref()));
    Value::Object(fields)
}

/// A stored message in one line, for people.
pub(crate) fn line(stored: &Stored) -> String {
    let id = stored.id().map_or_else(|| "unknown id".to_owned(), |id| id.to_string());
    let died = stored.died_at.map(time).unwrap_or_default();
    let topic = stored.message().map_or("(no message)", |message| message.topic());
    let key = stored.message().and_then(|message| message.key()).map(|key| format!(" key {key}"));
    let reason = stored.reason.as_deref().unwrap_or("without a reason");
    let (key, attempts) = (key.unwrap_or_default(), stored.attempts);
    // A reason comes from elsewhere and may hold line breaks or a terminal's control sequences.
    let line = format!("{id}  {died}  {topic}{key}  attempts {attempts}  {reason}");
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn payload(bytes: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => ("payload", json!(text)),
        Err(_) => ("payload_base64", json!(STANDARD.encode(bytes))),
    }
}

/// A store's time in RFC 3339, or in microseconds where the calendar has no word for it.
fn time(timestamp: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(timestamp.as_micros())
        .map_or_else(|_| format!("{timestamp:?}"), |time| time.to_string())
}
