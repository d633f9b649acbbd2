use crate::connection::Connector;
use crate::error::Operation;
use crate::{RabbitMqConfig, flight, judge};
use pillarbox_core::{Destination, Error, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::sync::Arc;

/// Publishes to RabbitMQ. Clones share one connection.
///
/// Each publish has a channel of the connection for itself while it runs, so that publishes side by side, and those that were cut
/// off, are never told each other's outcomes.
///
/// | the broker | outcome |
/// | --- | --- |
/// | confirms | `Ok` |
/// | returns the message: no queue is bound for its topic; the exchange is not there | `Unroutable` |
/// | refuses it (`basic.nack`): a queue is full or broke down | `Unavailable`: overload, whose cure is a pause |
/// | has an alarm of memory or disk (`connection.blocked`) | `Unavailable`, at once where it is known, else when the confirm timeout is over |
/// | loses the connection | `Unavailable`; what was not wholly written is `NotApplied` |
/// | does not confirm in time while the connection lives | `Indeterminate` |
/// | closes the channel or the connection over a message | `Rejected` or `Unexpected` for a message alone; for several `Unavailable`, so that the relay sends them one at a time |
/// | denies access | `Misconfigured` |
#[derive(Clone)]
pub struct RabbitMqTransport(Arc<Connector>);

impl RabbitMqTransport {
    /// Connects by URL (see [`RabbitMqConfig::from_url`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL or refused credentials, `Unavailable` if the broker does not answer; the error names
    /// `user@host:port`, never the password.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(RabbitMqConfig::from_url(url)?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`open`](Self::open). With [`verify`](RabbitMqConfig::verify) `Misconfigured` if the exchange is not there.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: RabbitMqConfig) -> Result<Self, Error> {
        config.check()?;
        let connector = Connector::new(config);
        connector.live(Operation::Open).await?;
        if connector.config().verify {
            connector.ask(Operation::Open).await.map_err(judge::missing_at_the_start)?;
        }
        Ok(Self(Arc::new(connector)))
    }
}

impl fmt::Debug for RabbitMqTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RabbitMqTransport").field(self.0.config()).finish()
    }
}

impl Transport for RabbitMqTransport {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        if batch.is_empty() {
            return;
        }
        match self.0.channel(Operation::Publish).await {
            Ok(channel) => flight::publish(self.0.config(), &channel, batch, outcomes).await,
            Err(error) => outcomes.fill(|| Err(judge::repeated(&error).not_applied())),
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        self.0.ask(Operation::Probe).await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        let max_payload = self.0.config().max_payload;
        TransportGuarantees { deduplicates: false, max_payload, prefix_per_key: false }
    }
}
