use crate::RabbitMqConfig;
use crate::error::from_client;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use pillarbox_core::{Error, ErrorKind};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// One connection with one channel in confirm mode, made again when it is lost, by one caller at a time.
pub(crate) struct Connector {
    config: RabbitMqConfig,
    live: Mutex<Option<Live>>,
}

/// A connection that was alive a moment ago.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) connection: Arc<Connection>,
    pub(crate) channel: Channel,
}

impl Live {
    /// Whether the broker holds publishers back: an alarm of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

impl Connector {
    pub(crate) fn new(config: RabbitMqConfig) -> Self {
        Self { config, live: Mutex::new(None) }
    }

    pub(crate) fn config(&self) -> &RabbitMqConfig {
        &self.config
    }

    /// The connection, made if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the connection that was there, or none.
    pub(crate) async fn live(&self, operation: &'static str) -> Result<Live, Error> {
        let mut live = self.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| live.is_connected()) {
            return Ok(live.clone());
        }
        *live = None;
        let made = timeout(self.config.connect_timeout, self.connect(operation)).await.unwrap_or_else(|_| {
            let (address, after) = (self.config.address(), self.config.connect_timeout);
            Err(Error::new(ErrorKind::Unavailable, operation).describe(format!(
                "RabbitMQ at {address} did not answer within {after:?}; is it running and reachable?"
            )))
        });
        let made = made.map_err(Error::not_applied)?;
        *live = Some(made.clone());
        Ok(made)
    }

    async fn connect(&self, operation: &'static str) -> Result<Live, Error> {
        let address = self.config.address();
        let failed = |error| from_client(error, operation, &address);
        let properties = ConnectionProperties::default().with_connection_name("pillarbox".into());
        let connection =
            Connection::connect_uri(self.config.uri.clone(), properties).await.map_err(failed)?;
        let channel = connection.create_channel().await.map_err(failed)?;
        if let Some(kind) = &self.config.declare {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let exchange = self.config.exchange.as_str().into();
            let table = FieldTable::default();
            channel.exchange_declare(exchange, kind.clone(), options, table).await.map_err(failed)?;
        }
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(Live { connection: Arc::new(connection), channel })
    }

    /// A round trip on a channel of its own, which asks for the exchange where one is named.
    pub(crate) async fn ask(&self, live: &Live, operation: &'static str) -> Result<(), Error> {
        let address = self.config.address();
        let failed = |error| from_client(error, operation, &address);
        let channel = live.connection.create_channel().await.map_err(failed)?;
        if !self.config.exchange.is_empty() {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            // A passive declaration looks at the name alone.
            let kind = self.config.declare.clone().unwrap_or(ExchangeKind::Direct);
            let exchange = self.config.exchange.as_str().into();
            channel.exchange_declare(exchange, kind, options, FieldTable::default()).await.map_err(failed)?;
        }
        channel.close(200, "done".into()).await.map_err(failed)
    }
}
