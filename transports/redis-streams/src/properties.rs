//! A message as the entry of a stream.

use crate::RedisStreamsConfig;
use pillarbox_core::{CloudEvents, Message};
use redis::{Cmd, RedisWrite, ToRedisArgs};
use std::borrow::Cow;

/// The fields of an entry: the message's id (a UUID), when it was created (milliseconds since 1970, the producer's clock), its
/// ordering key and its content type where it has them, and last its payload, as it is. Each header is one more field, behind
/// [`HEADER_PREFIX`].
pub const FIELDS: [&str; 5] = ["id", "created_at", "key", "content_type", "payload"];

/// What stands before the name of a header in the name of its field.
pub const HEADER_PREFIX: &str = "header.";

/// What stands before the name of a CloudEvent's attribute in the name of its field, as in Kafka.
pub const ATTRIBUTE_PREFIX: &str = CloudEvents::KAFKA_PREFIX;

/// The stream of a topic.
pub(crate) fn stream(config: &RedisStreamsConfig, message: &Message) -> String {
    let topic: &str = message.topic();
    format!("{}{topic}", config.prefix)
}

/// The words of an `XADD` behind the name of the stream: options, `*`, names and values.
pub(crate) struct Words<'a> {
    pub(crate) config: &'a RedisStreamsConfig,
    pub(crate) message: &'a Message,
}

impl ToRedisArgs for Words<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let (config, message) = (self.config, self.message);
        if !config.create {
            out.write_arg(b"NOMKSTREAM");
        }
        if let Some(entries) = config.max_length {
            out.write_arg(b"MAXLEN");
            out.write_arg(b"~");
            out.write_arg_fmt(entries);
        }
        out.write_arg(b"*");
        let [id, created_at, key, content_type, payload] = FIELDS;
        out.write_arg(id.as_bytes());
        out.write_arg_fmt(message.id());
        out.write_arg(created_at.as_bytes());
        out.write_arg_fmt(message.created_at().as_millis());
        for (name, value) in [(key, message.key()), (content_type, message.content_type())] {
            if let Some(value) = value {
                out.write_arg(name.as_bytes());
                out.write_arg(value.as_bytes());
            }
        }
        for (name, value) in message.headers().iter() {
            let name: &str = name;
            out.write_arg_fmt(format_args!("{HEADER_PREFIX}{name}"));
            out.write_arg(value.as_bytes());
        }
        for (name, value) in attributes(config, message) {
            out.write_arg_fmt(format_args!("{ATTRIBUTE_PREFIX}{name}"));
            out.write_arg(value.as_bytes());
        }
        out.write_arg(payload.as_bytes());
        out.write_arg(message.payload());
    }

    fn num_of_args(&self) -> usize {
        let (config, message) = (self.config, self.message);
        let options = usize::from(!config.create) + 3 * usize::from(config.max_length.is_some());
        let optional = usize::from(message.key().is_some()) + usize::from(message.content_type().is_some());
        options + 1 + 2 * (3 + optional + message.headers().len() + attributes(config, message).count())
    }
}

/// Those of the CloudEvent, where it shall be one.
fn attributes<'a>(
    config: &'a RedisStreamsConfig,
    message: &'a Message,
) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
    config.source.iter().flat_map(|source| source.attributes(message))
}

/// One message.
pub(crate) fn add(config: &RedisStreamsConfig, message: &Message) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(stream(config, message)).arg(Words { config, message });
    command
}

/// Adds the messages of one key in order, and stops at the first that fails. Answers how many were added, and, if one failed, the
/// server's words; `NOSTREAM` is ours, for a stream that is not there and shall not be made.
const ADD_IN_ORDER: &str = "local at = 1
for place, stream in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  local answer = redis.pcall('XADD', stream, unpack(ARGV, at + 1, at + count))
  if not answer then return {place - 1, 'NOSTREAM'} end
  if type(answer) == 'table' and answer.err then return {place - 1, answer.err} end
  at = at + count + 1
end
return {#KEYS}";

/// Several messages of one key.
pub(crate) fn add_in_order<'a>(
    config: &RedisStreamsConfig,
    messages: impl Iterator<Item = &'a Message> + Clone,
) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(ADD_IN_ORDER).arg(messages.clone().count());
    for message in messages.clone() {
        command.arg(stream(config, message));
    }
    for message in messages {
        let words = Words { config, message };
        command.arg(words.num_of_args()).arg(words);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    fn message() -> Message {
        Message::given(MessageId::from_bytes([0x22; 16]), Timestamp::from_millis(5_900), "orders")
            .key("order-1")
            .header("traceparent", "00-1")
            .content_type("text/plain")
            .payload("x")
            .unwrap()
    }

    fn words(command: &Cmd) -> Vec<String> {
        command
            .args_iter()
            .map(|word| match word {
                redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).unwrap(),
                _ => "?".to_owned(),
            })
            .collect()
    }

    #[test]
    fn everything_travels() {
        let config = RedisStreamsConfig::from_url("redis://host/?transport.prefix=events:").unwrap();
        let expected = "XADD events:orders * id 22222222-2222-2222-2222-222222222222 created_at 5900 key order-1 \
                        content_type text/plain header.traceparent 00-1 payload x";
        assert_eq!(words(&add(&config, &message())).join(" "), expected);
        let config = config.create(false).max_length(1_000);
        let trimmed = words(&add(&config, &message())).join(" ");
        assert!(trimmed.starts_with("XADD events:orders NOMKSTREAM MAXLEN ~ 1000 * id "), "{trimmed}");
    }

    /// The example of the bindings to HTTP and AMQP, section 3.1.4, with an id of ours.
    #[test]
    fn the_example_of_cloudevents() {
        let created_at = Timestamp::from_millis(1_522_900_584_000);
        let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
            .content_type("application/json; charset=utf-8")
            .payload("{}")
            .unwrap();
        let config = RedisStreamsConfig::from_url("redis://host/?transport.source=/mycontext/subcontext");
        let words = words(&add(&config.unwrap(), &message));
        let begin = words.iter().position(|word| word.starts_with(ATTRIBUTE_PREFIX)).unwrap();
        assert_eq!(
            words[begin..],
            [
                "ce_specversion",
                "1.0",
                "ce_id",
                "11111111-1111-1111-1111-111111111111",
                "ce_source",
                "/mycontext/subcontext",
                "ce_type",
                "com.example.someevent",
                "ce_datacontenttype",
                "application/json; charset=utf-8",
                "ce_time",
                "2018-04-05T03:56:24Z",
                "payload",
                "{}",
            ]
        );
    }

    #[test]
    fn the_words_are_counted_rightly() {
        let bare = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t").payload("").unwrap();
        let config = RedisStreamsConfig::from_url("redis://host/").unwrap();
        let event = config.clone().source(CloudEvents::new("/orders").unwrap());
        for config in [config.clone(), event, config.create(false).max_length(7)] {
            for message in [message(), bare.clone()] {
                let written = words(&add(&config, &message)).len() - 2;
                assert_eq!(Words { config: &config, message: &message }.num_of_args(), written);
            }
        }
    }
}
