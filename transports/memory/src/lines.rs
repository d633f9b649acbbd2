use base64::Engine as _;
use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use std::fmt;
use std::io::{Stdout, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes a line of JSON per message to standard output. Writes block, as any `println!` does.
pub type StdoutTransport = LineTransport<Stdout>;

/// Writes a line of JSON per message to `W`.
///
/// A line has `id`, `topic`, `key`, `headers`, `content_type`, `created_at` and `deliver_at` (microseconds since the Unix
/// epoch), and `payload` if it is UTF-8, `payload_base64` if it is not; what is absent is left out. A message counts as
/// confirmed once its line is flushed. Where a write has failed, an empty line may follow, which ends what stood there in part.
pub struct LineTransport<W>(Arc<Mutex<Output<W>>>);

struct Output<W> {
    writer: W,
    /// The last write failed, and may have written a part of a line.
    torn: bool,
}

impl LineTransport<Stdout> {
    /// To standard output.
    pub fn new() -> Self {
        Self::to(std::io::stdout())
    }
}

impl Default for LineTransport<Stdout> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write + Send> LineTransport<W> {
    /// To this writer.
    pub fn to(writer: W) -> Self {
        Self(Arc::new(Mutex::new(Output { writer, torn: false })))
    }

    fn write(&self, batch: &[Message]) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for message in batch {
            serde_json::to_writer(&mut lines, &Line(message))?;
            lines.push(b'\n');
        }
        self.output().write(&lines)
    }

    fn output(&self) -> MutexGuard<'_, Output<W>> {
        // After a panic within a write it is torn, and says so.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Output<W> {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if std::mem::replace(&mut self.torn, true) {
            self.writer.write_all(b"\n")?;
        }
        self.writer.write_all(lines)?;
        self.writer.flush()?;
        self.torn = false;
        Ok(())
    }
}

impl<W> Clone for LineTransport<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W> fmt::Debug for LineTransport<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LineTransport")
    }
}

impl<W: Write + Send> Transport for LineTransport<W> {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        match self.write(batch) {
            Ok(()) => outcomes.fill(|| Ok(())),
            Err(error) => {
                let reason = error.to_string();
                // Some lines may have been written.
                outcomes.fill(|| {
                    Err(Error::new(ErrorKind::Unavailable, "publish")
                        .describe(format!("the lines could not be written: {reason}")))
                });
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        // After a failure this writes, since a full disk lets itself be flushed.
        self.output().write(&[]).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "probe")
                .describe("the output could not be written")
                .caused_by(error)
        })
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// A message as an object of JSON.
struct Line<'a>(&'a Message);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("id", &message.id().to_string())?;
        line.serialize_entry("topic", &**message.topic())?;
        if let Some(key) = message.key() {
            line.serialize_entry("key", &**key)?;
        }
        if !message.headers().is_empty() {
            line.serialize_entry("headers", &HeaderMap(message))?;
        }
        if let Some(content_type) = message.content_type() {
            line.serialize_entry("content_type", &**content_type)?;
        }
        line.serialize_entry("created_at", &message.created_at().as_micros())?;
        if let Some(deliver_at) = message.deliver_at() {
            line.serialize_entry("deliver_at", &deliver_at.as_micros())?;
        }
        match std::str::from_utf8(message.payload()) {
            Ok(text) => line.serialize_entry("payload", text)?,
            Err(_) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(message.payload());
                line.serialize_entry("payload_base64", &encoded)?;
            }
        }
        line.end()
    }
}

struct HeaderMap<'a>(&'a Message);

impl Serialize for HeaderMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.headers().iter().map(|(name, value)| (&**name, &**value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;
    use pillarbox_core::{Effect, MessageId, Timestamp};

    fn publish(transport: &impl Transport, batch: &[Message]) -> Outcomes {
        let mut outcomes = Outcomes::new();
        outcomes.reset(batch.len());
        block_on(transport.publish(batch, &mut outcomes));
        outcomes
    }

    #[test]
    fn a_line_says_everything() {
        let transport = LineTransport::to(Vec::new());
        let id = MessageId::from_bytes([0x11; 16]);
        let text = Message::given(id, Timestamp::from_micros(5), "orders")
            .key("k\u{e9}y")
            .header("b", "\"2\"")
            .header("a", "1")
            .content_type("text/plain")
            .deliver_at(Timestamp::from_micros(9))
            .payload("one\ntwo")
            .unwrap();
        let binary = Message::given(id, Timestamp::from_micros(5), "orders").payload(vec![0xff, 0]).unwrap();
        assert!(publish(&transport, &[text, binary]).is_complete());
        let written = String::from_utf8(transport.output().writer.clone()).unwrap();
        let expected = concat!(
            r#"{"id":"11111111-1111-1111-1111-111111111111","topic":"orders","key":"kéy","headers":{"a":"1","b":"\"2\""},"#,
            r#""content_type":"text/plain","created_at":5,"deliver_at":9,"payload":"one\ntwo"}"#,
            "\n",
            r#"{"id":"11111111-1111-1111-1111-111111111111","topic":"orders","created_at":5,"payload_base64":"/wA="}"#,
            "\n",
        );
        assert_eq!(written, expected);
    }

    /// A pipe whose reader has gone.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_broken_pipe_is_unavailable() {
        let transport = LineTransport::to(Broken);
        let message =
            Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t").payload("").unwrap();
        let outcomes = publish(&transport, &[message]);
        let Some(Err(error)) = outcomes.outcome(0) else {
            panic!("expected an error, there is {outcomes:?}")
        };
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        assert!(block_on(transport.probe(Destination::ONLY)).is_err());
    }

    /// A disk with so many bytes left, which can always be flushed.
    struct Disk {
        written: Vec<u8>,
        left: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let fitting = bytes.len().min(self.left);
            if fitting == 0 && !bytes.is_empty() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.left -= fitting;
            self.written.extend_from_slice(&bytes[..fitting]);
            Ok(fitting)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_fails_its_probe_until_there_is_room_and_tears_no_later_line() {
        let transport = LineTransport::to(Disk { written: Vec::new(), left: 10 });
        let message =
            Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t").payload("").unwrap();
        let batch = [message];
        assert!(matches!(publish(&transport, &batch).outcome(0), Some(Err(_))));
        assert!(
            block_on(transport.probe(Destination::ONLY)).is_err(),
            "or the messages would be charged for the disk"
        );
        transport.output().writer.left = 1_000;
        assert!(block_on(transport.probe(Destination::ONLY)).is_ok());
        assert!(matches!(publish(&transport, &batch).outcome(0), Some(Ok(()))));
        let written = String::from_utf8(transport.output().writer.written.clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.len(), 2, "{written}");
        assert!(lines[1].starts_with('{') && lines[1].ends_with('}'), "{written}");
    }
}
