use lapin::ExchangeKind;
use lapin::uri::AMQPUri;
use percent_encoding::percent_decode_str;
use pillarbox_core::{Error, ErrorKind, UrlOptions};
use std::fmt;
use std::time::Duration;

/// The settings of the transport to RabbitMQ.
#[derive(Clone)]
pub struct RabbitMqConfig {
    pub(crate) uri: AMQPUri,
    pub(crate) exchange: String,
    pub(crate) declare: Option<ExchangeKind>,
    pub(crate) verify: bool,
    pub(crate) confirm_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload: u32,
}

impl RabbitMqConfig {
    /// The settings of a URL: the client's own `amqp://user:password@host:port/virtual-host?heartbeat=10`, plus ours under
    /// the prefix `transport.` in the query, named as the setters here.
    ///
    /// # Errors
    /// `Misconfigured`, naming the option; an unknown one is listed with those that are known. No error shows the URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.starts_with("transport.") {
                let value = percent_decode_str(value).decode_utf8().map_err(|_| malformed(name))?;
                ours.push((name, value.into_owned()));
            } else if matches!(
                name,
                "frame_max" | "channel_max" | "heartbeat" | "connection_timeout" | "auth_mechanism"
            ) {
                theirs.push(pair);
            } else {
                return Err(misconfigured(format!(
                    "the option `{name}` is unknown; RabbitMQ's own are `heartbeat`, `frame_max`, `channel_max`, \
                     `connection_timeout` and `auth_mechanism`, and ours begin with `transport.`"
                )));
            }
        }
        let own = if theirs.is_empty() { place.to_owned() } else { format!("{place}?{}", theirs.join("&")) };
        // The parser's own words may repeat the URL, and with it the password.
        let uri: AMQPUri = own.parse().map_err(|_| {
            misconfigured(
                "the URL is malformed; it reads amqp://user:password@host:5672/virtual-host".to_owned(),
            )
        })?;
        let mut config = Self::new(uri);
        let mut options = UrlOptions::new("transport.", ours);
        if let Some(exchange) = options.text("exchange")? {
            config = config.exchange(exchange);
        }
        if let Some(kind) = options.text("declare")? {
            config = config.declare(exchange_kind(&kind)?);
        }
        if let Some(verify) = options.parsed("verify", "`true` or `false`")? {
            config = config.verify(verify);
        }
        if let Some(timeout) = options.duration("confirm_timeout")? {
            config = config.confirm_timeout(timeout);
        }
        if let Some(timeout) = options.duration("connect_timeout")? {
            config = config.connect_timeout(timeout);
        }
        if let Some(bytes) = options.parsed("max_payload", "a number of bytes")? {
            config = config.max_payload(bytes);
        }
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The defaults, for this address.
    pub fn new(uri: AMQPUri) -> Self {
        Self {
            uri,
            exchange: String::new(),
            declare: None,
            verify: false,
            confirm_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(5),
            max_payload: 16 * 1024 * 1024,
        }
    }

    /// The exchange that messages go to, with the topic as routing key; at most 255 bytes. Default: the broker's default
    /// exchange, where the topic names a queue.
    #[must_use]
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// Declares the exchange, durable, whenever a connection is made. Default: no, since topology belongs to operators.
    #[must_use]
    pub fn declare(mut self, kind: ExchangeKind) -> Self {
        self.declare = Some(kind);
        self
    }

    /// Opens only if the exchange is there. Default: no, so that a relay can start before its topology; messages are
    /// `Unroutable` until then.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// How long a batch waits for its confirms while the connection lives. Default 8 s: below the relay's own limit of 10 s,
    /// so that a slow confirm is told apart from a lost connection.
    #[must_use]
    pub fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = timeout;
        self
    }

    /// How long connecting may take. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest payload, in bytes. Default 16 MiB, the broker's own limit since version 4; before that it is 128 MiB. Above
    /// the broker's limit a single message would close the channel for all.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Who is connected to, without the password: `user@host:port`.
    pub(crate) fn address(&self) -> String {
        let authority = &self.uri.authority;
        format!("{}@{}:{}", authority.userinfo.username, authority.host, authority.port)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.exchange.len() > 255 {
            return Err(misconfigured("`transport.exchange` has more than 255 bytes".to_owned()));
        }
        if self.exchange.is_empty() && self.declare.is_some() {
            return Err(misconfigured(
                "`transport.declare` needs `transport.exchange`: the default exchange cannot be declared"
                    .to_owned(),
            ));
        }
        if self.confirm_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(misconfigured(
                "`transport.confirm_timeout` and `transport.connect_timeout` are longer than nothing"
                    .to_owned(),
            ));
        }
        #[cfg(not(feature = "tls"))]
        if self.uri.scheme == lapin::uri::AMQPScheme::AMQPS {
            return Err(misconfigured("`amqps:` needs the feature `tls` of pillarbox-rabbitmq".to_owned()));
        }
        Ok(())
    }
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RabbitMqConfig")
            .field("address", &self.address())
            .field("virtual_host", &self.uri.vhost)
            .field("exchange", &self.exchange)
            .field("declare", &self.declare)
            .field("verify", &self.verify)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_payload", &self.max_payload)
            .finish()
    }
}

fn exchange_kind(name: &str) -> Result<ExchangeKind, Error> {
    match name {
        "direct" => Ok(ExchangeKind::Direct),
        "fanout" => Ok(ExchangeKind::Fanout),
        "headers" => Ok(ExchangeKind::Headers),
        "topic" => Ok(ExchangeKind::Topic),
        _ => Err(misconfigured(format!(
            "`transport.declare` is {name:?}; it takes `direct`, `fanout`, `headers` or `topic`"
        ))),
    }
}

fn malformed(name: &str) -> Error {
    misconfigured(format!("the value of `{name}` is not valid percent-encoded UTF-8"))
}

fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let config = RabbitMqConfig::from_url(
            "amqp://ann:s3cret@broker:5673/sales?heartbeat=7&transport.exchange=a%20b&transport.declare=topic&transport.confirm_timeout=500ms",
        )
        .unwrap();
        assert_eq!(config.address(), "ann@broker:5673");
        assert_eq!((config.uri.vhost.as_str(), config.uri.query.heartbeat), ("sales", Some(7)));
        assert_eq!((config.exchange.as_str(), config.declare.clone()), ("a b", Some(ExchangeKind::Topic)));
        assert_eq!(config.confirm_timeout, Duration::from_millis(500));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("amqp://ann:s3cret@broker:port/", "malformed"),
            ("http://ann:s3cret@broker/", "malformed"),
            ("amqp://ann:s3cret@broker/?transport.exchagne=x", "transport.exchange"),
            ("amqp://ann:s3cret@broker/?exchange=x", "`exchange` is unknown"),
            ("amqp://ann:s3cret@broker/?transport.declare=maybe", "transport.declare"),
            ("amqp://ann:s3cret@broker/?transport.declare=topic", "transport.exchange"),
            ("amqp://ann:s3cret@broker/?transport.confirm_timeout=soon", "transport.confirm_timeout"),
            ("amqp://ann:s3cret@broker/?transport.confirm_timeout=0s", "transport.confirm_timeout"),
            ("amqp://ann:s3cret@broker/?transport.exchange=%ff", "transport.exchange"),
        ] {
            let error = RabbitMqConfig::from_url(url).unwrap_err();
            let shown = format!("{error} {error:?} {}", error.report());
            assert!(shown.contains(part), "{url}: {shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
