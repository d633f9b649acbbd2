use crate::connection::Connector;
use crate::error::Operation;
use crate::{KafkaConfig, flight};
use pillarbox_core::{Destination, Error, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::sync::Arc;

/// Publishes to topics of Kafka. Clones share one producer.
///
/// | the broker, or librdkafka | outcome |
/// | --- | --- |
/// | confirms, also as a repetition | `Ok` |
/// | knows no such topic | `Unroutable` |
/// | finds the message too large, or not fit for its topic | `Rejected`; of several in one request each is asked about alone |
/// | does not let the user in, or write there | `Misconfigured` |
/// | is away, every one of them | `Unavailable`; what was not sent is `NotApplied` |
/// | does not confirm in time while the connection lives | `Indeterminate`; after a connection failed `Unavailable` |
/// | has a full queue | the publish waits for room |
///
/// # Shutdown
///
/// When the last clone is dropped, what its producer has not sent is thrown away, and what is in flight gets a second to end, on a
/// thread of its own. Every publish that was awaited has its outcomes by then.
#[derive(Clone)]
pub struct KafkaTransport(Arc<Connector>);

impl KafkaTransport {
    /// Connects by URL (see [`KafkaConfig::from_url`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL or refused credentials, `Unavailable` if no broker answers; the error names `user@host:port`,
    /// never a password.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(KafkaConfig::from_url(url)?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: KafkaConfig) -> Result<Self, Error> {
        config.check()?;
        let transport = Self(Arc::new(Connector::new(config)));
        transport.0.ask(Operation::Open).await?;
        Ok(transport)
    }
}

impl fmt::Debug for KafkaTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KafkaTransport").field(self.0.config()).finish()
    }
}

impl Transport for KafkaTransport {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        flight::publish(&self.0, batch, outcomes).await;
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        self.0.ask(Operation::Probe).await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        let max_payload = self.0.config().max_payload;
        TransportGuarantees { deduplicates: false, max_payload, prefix_per_key: true }
    }
}
