use crate::RabbitMqConfig;
use crate::connection::{Connector, Live};
use crate::error::{from_client, was_not_sent};
use crate::properties::properties;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Confirmation, PublisherConfirm};
use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Publishes to RabbitMQ. Clones share one connection.
#[derive(Clone)]
pub struct RabbitMqTransport(Arc<Connector>);

impl RabbitMqTransport {
    /// Connects by URL (see [`RabbitMqConfig::from_url`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL or refused credentials, `Unavailable` if the broker does not answer; the error names
    /// `user@host:port`, never the password.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(RabbitMqConfig::from_url(url)?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn connect(config: RabbitMqConfig) -> Result<Self, Error> {
        config.check()?;
        let connector = Connector::new(config);
        let live = connector.live("open").await?;
        if connector.config().verify {
            connector.ask(&live, "open").await?;
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
        let config = self.0.config();
        let live = match self.0.live("publish").await {
            Ok(live) if live.is_blocked() => {
                return outcomes.fill(|| Err(blocked("publish", config).not_applied()));
            }
            Ok(live) => live,
            Err(error) => return fill_with(outcomes, &error),
        };
        let deadline = Instant::now() + config.confirm_timeout;
        let mut confirms = FuturesUnordered::new();
        for (index, message) in batch.iter().enumerate() {
            match send(config, &live, message).await {
                Ok(confirm) => confirms.push(async move { (index, confirm.await) }),
                Err(error) if error.kind() == ErrorKind::Rejected => outcomes.set(index, Err(error)),
                Err(error) => {
                    // Those behind it are not sent at all.
                    let behind = repeated(&error);
                    outcomes.set(index, Err(error));
                    for later in index + 1..batch.len() {
                        outcomes.set(later, Err(repeated(&behind).not_applied()));
                    }
                    break;
                }
            }
        }
        while !confirms.is_empty() {
            match timeout_at(deadline, confirms.next()).await {
                Ok(Some((index, confirmation))) => outcomes.set(index, judge(config, confirmation)),
                Ok(None) => {}
                Err(_) => return outcomes.fill(|| Err(unconfirmed(config, &live))),
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        let live = self.0.live("probe").await?;
        if live.is_blocked() {
            return Err(blocked("probe", self.0.config()));
        }
        self.0.ask(&live, "probe").await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        let max_payload = self.0.config().max_payload;
        TransportGuarantees { deduplicates: false, max_payload, prefix_per_key: false }
    }
}

async fn send(config: &RabbitMqConfig, live: &Live, message: &Message) -> Result<PublisherConfirm, Error> {
    let size = message.payload().len();
    if size > config.max_payload as usize {
        return Err(Error::new(ErrorKind::Rejected, "publish")
            .describe(format!(
                "the payload has {size} bytes; `transport.max_payload` is {}",
                config.max_payload
            ))
            .not_applied());
    }
    let properties = properties(message)?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    // The settings and the message's limits keep both within 255 bytes.
    let (exchange, topic) = (config.exchange.as_str().into(), (**message.topic()).into());
    let sent = live.channel.basic_publish(exchange, topic, options, message.payload(), properties).await;
    sent.map_err(|error| {
        let not_sent = was_not_sent(&error);
        let error = from_client(error, "publish", &config.address());
        if not_sent { error.not_applied() } else { error }
    })
}

fn judge(config: &RabbitMqConfig, confirmation: lapin::Result<Confirmation>) -> Result<(), Error> {
    match confirmation {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            let (exchange, topic) = (&returned.delivery.exchange, &returned.delivery.routing_key);
            Err(Error::new(ErrorKind::Unroutable, "publish")
                .describe(format!(
                    "the exchange {:?} has no queue for the topic {:?} ({}); bind one",
                    exchange.as_str(),
                    topic.as_str(),
                    returned.reply_text.as_str()
                ))
                .not_applied())
        }
        // A queue that is full and refuses (`reject-publish`), or a broker in trouble: overload, whose cure is a pause.
        Ok(Confirmation::Nack(None)) => Err(Error::new(ErrorKind::Unavailable, "publish")
            .describe(format!("RabbitMQ at {} refuses the message; is a queue full?", config.address()))
            .not_applied()),
        Ok(Confirmation::NotRequested) => {
            Err(Error::new(ErrorKind::Unexpected, "publish").describe("the channel is not in confirm mode"))
        }
        Err(error) => Err(from_client(error, "publish", &config.address())),
    }
}

fn unconfirmed(config: &RabbitMqConfig, live: &Live) -> Error {
    if live.is_blocked() {
        return blocked("publish", config);
    }
    let kind = if live.is_connected() { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
    let (address, after) = (config.address(), config.confirm_timeout);
    Error::new(kind, "publish").describe(format!(
        "RabbitMQ at {address} did not confirm within {after:?} (`transport.confirm_timeout`)"
    ))
}

fn blocked(operation: &'static str, config: &RabbitMqConfig) -> Error {
    Error::new(ErrorKind::Unavailable, operation).describe(format!(
        "RabbitMQ at {} blocks publishers: an alarm of memory or disk; `rabbitmqctl status` tells which",
        config.address()
    ))
}

fn fill_with(outcomes: &mut Outcomes, error: &Error) {
    outcomes.fill(|| Err(repeated(error).not_applied()));
}

/// The same error for another message. The cause is told once.
fn repeated(error: &Error) -> Error {
    Error::new(error.kind(), error.operation()).describe(error.description().to_owned())
}
