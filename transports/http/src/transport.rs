use crate::{HttpConfig, connection, flight};
use pillarbox_core::{Destination, Error, Message, Outcomes, Transport, TransportGuarantees};
use reqwest::Client;
use std::fmt;
use std::sync::Arc;

/// Posts messages to an HTTP endpoint. Clones share their connections.
///
/// | the endpoint | outcome |
/// | --- | --- |
/// | answers 2xx | `Ok` |
/// | answers 408, 425, 429, 503 or 507 | `Unavailable`, not applied; `Retry-After` is honoured, up to an hour |
/// | answers 502, 504 or 520 to 530: a gateway in front of it | `Unavailable`, effect unknown |
/// | cannot be connected to, or loses the connection | `Unavailable` |
/// | answers 404, 410 or 421 | `Unroutable` |
/// | answers 3xx, 401, 402, 403, 405, 407, 501, 505 or 511; has a bad certificate, or a private address | `Misconfigured` |
/// | answers 409, 423, 500 or another 5xx, or does not answer in time | `Indeterminate`: charged only while others succeed, or the probe does |
/// | answers another 4xx | `Rejected` |
///
/// What the endpoint said first, up to 200 letters, becomes part of the error, and so of a dead letter's reason. After an answer that
/// tells of the endpoint and not of one message, the rest of the publish is not sent.
#[derive(Clone)]
pub struct HttpTransport(Arc<Endpoint>);

struct Endpoint {
    config: HttpConfig,
    client: Client,
}

impl HttpTransport {
    /// Makes a client by URL (see [`HttpConfig::from_url`]). Sends nothing yet, so that a relay can start while an endpoint is away.
    ///
    /// # Errors
    /// `Misconfigured` for a bad URL or an address of a private network; the error names scheme, host and port, never path or query.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::new(HttpConfig::from_url(url)?)
    }

    /// Makes a client.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn new(config: HttpConfig) -> Result<Self, Error> {
        config.check()?;
        let client = connection::client(&config)?;
        Ok(Self(Arc::new(Endpoint { config, client })))
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("HttpTransport").field(&self.0.config).finish()
    }
}

impl Transport for HttpTransport {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        flight::publish(&self.0.config, &self.0.client, batch, outcomes).await;
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        flight::probe(&self.0.config, &self.0.client).await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        // Although a publish keeps the order of a key: one whose messages wait for each other would not be begun in time.
        TransportGuarantees {
            deduplicates: false,
            max_payload: self.0.config.max_payload,
            prefix_per_key: false,
        }
    }
}
