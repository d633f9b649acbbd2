use crate::connection::{Connector, NoAnswer};
use crate::error::Operation;
use crate::{NatsConfig, flight, judge};
use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::sync::Arc;

/// Publishes to streams of NATS JetStream. Clones share one connection.
///
/// | the server | outcome |
/// | --- | --- |
/// | acknowledges, also as a duplicate | `Ok` |
/// | says that nobody listens; another stream than `transport.stream` does; the user may not publish there | `Unroutable` |
/// | finds the message too large for it or for the stream | `Rejected` |
/// | has a stream that is full and discards new messages, or no resources left | `Unavailable`, certainly not applied |
/// | loses the connection | `Unavailable`; what was not sent is `NotApplied` |
/// | does not acknowledge in time while the connection lives | `Indeterminate` |
/// | refuses the login, or has no JetStream | `Misconfigured` |
#[derive(Clone)]
pub struct NatsTransport(Arc<Connector>);

impl NatsTransport {
    /// Connects by URL (see [`NatsConfig::from_url`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL, refused credentials or a server without JetStream, `Unavailable` if none answers; the error
    /// names `user@host:port`, never a password or token.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(NatsConfig::from_url(url)?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`open`](Self::open). With [`verify`](NatsConfig::verify) `Misconfigured` if the stream is not there.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: NatsConfig) -> Result<Self, Error> {
        config.check()?;
        let transport = Self(Arc::new(Connector::new(config)));
        transport.ask(Operation::Open, "$JS.API.INFO").await?;
        let config = transport.0.config();
        if let Some(stream) = config.stream.as_ref().filter(|_| config.verify) {
            let asked = transport.ask(Operation::Open, &format!("$JS.API.STREAM.INFO.{stream}")).await;
            asked.map_err(|error| match error.kind() {
                ErrorKind::Unroutable => crate::config::misconfigured(format!(
                    "NATS at {} has no stream {stream:?} (`transport.stream`, `transport.verify`)",
                    config.place()
                )),
                _ => error,
            })?;
        }
        Ok(transport)
    }

    /// A question to JetStream. That the user may not ask it is an answer too: the server lives.
    async fn ask(&self, operation: Operation, subject: &str) -> Result<(), Error> {
        let link = self.0.link(operation).await?;
        let config = self.0.config();
        let told = |kind, words: &str| {
            let place = config.place();
            Err(Error::new(kind, operation.name())
                .describe(format!("NATS at {place}: {words}"))
                .not_applied())
        };
        match link.request(subject, None, bytes::Bytes::new(), config.connect_timeout).await {
            Ok(answer) => judge::answered(config, operation, &answer.payload),
            Err(NoAnswer::Denied) => Ok(()),
            Err(NoAnswer::NoResponders) => {
                told(ErrorKind::Misconfigured, "JetStream is not enabled, for the server or for this account")
            }
            Err(NoAnswer::NotSent | NoAnswer::Lost) => {
                told(ErrorKind::Unavailable, "the connection was lost")
            }
            Err(NoAnswer::TimedOut) => {
                // It may be half open; a new one tells.
                link.give_up();
                told(ErrorKind::Unavailable, "no answer within `transport.connect_timeout`")
            }
        }
    }
}

impl fmt::Debug for NatsTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("NatsTransport").field(self.0.config()).finish()
    }
}

impl Transport for NatsTransport {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        if batch.is_empty() {
            return;
        }
        match self.0.link(Operation::Publish).await {
            Ok(link) => flight::publish(&self.0, &link, batch, outcomes).await,
            Err(error) => outcomes.fill(|| Err(judge::repeated(&error))),
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        self.ask(Operation::Probe, "$JS.API.INFO").await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: true, max_payload: self.0.max_payload(), prefix_per_key: true }
    }
}
