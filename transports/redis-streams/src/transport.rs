use crate::connection::Connector;
use crate::error::{self, Failure, Operation};
use crate::{RedisStreamsConfig, checks, flight, judge};
use pillarbox_core::{Destination, Error, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::sync::Arc;

/// Publishes to Redis Streams. Clones share one connection.
///
/// | the server | outcome |
/// | --- | --- |
/// | answers with the entry's id | `Ok` |
/// | holds something else under the stream's name, or lacks the stream and shall not make it | `Unroutable` |
/// | is full (`OOM`), loads its data, cannot write to disk, is a replica | `Unavailable`, certainly not applied |
/// | has too few replicas that acknowledge | `Unavailable`: the message is there, and is sent again |
/// | loses the connection, or does not answer in time | `Unavailable`, effect unknown |
/// | refuses the credentials or the command | `Misconfigured` |
#[derive(Clone)]
pub struct RedisStreamsTransport(Arc<Connector>);

impl RedisStreamsTransport {
    /// Connects by URL (see [`RedisStreamsConfig::from_url`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL, refused credentials, or a server that would evict streams; `Unavailable` if the server does
    /// not answer. The error names host and port, never the password.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(RedisStreamsConfig::from_url(url)?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: RedisStreamsConfig) -> Result<Self, Error> {
        config.check()?;
        let connector = Connector::new(config);
        checks::check(&connector).await?;
        Ok(Self(Arc::new(connector)))
    }
}

impl fmt::Debug for RedisStreamsTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RedisStreamsTransport").field(self.0.config()).finish()
    }
}

impl Transport for RedisStreamsTransport {
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
        let link = self.0.link(Operation::Probe).await?;
        let failed =
            |failure| error::describe(Failure::Request(failure), Operation::Probe, &self.0.config().place());
        let answer = self.0.ask(&link, &redis::cmd("PING")).await;
        answer.map(drop).map_err(|failure| failed(failure).not_applied())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        let max_payload = self.0.config().max_payload;
        TransportGuarantees { deduplicates: false, max_payload, prefix_per_key: true }
    }
}
