use lapin::ExchangeKind;
use lapin::uri::{AMQPScheme, AMQPUri};
use percent_encoding::percent_decode_str;
use pillarbox_core::{CloudEvents, Error, ErrorKind, UrlOptions};
use std::fmt;
use std::time::Duration;

/// The settings of the transport to RabbitMQ.
#[derive(Clone)]
pub struct RabbitMqConfig {
    pub(crate) uri: AMQPUri,
    pub(crate) exchange: String,
    pub(crate) source: Option<CloudEvents>,
    pub(crate) declare: Option<ExchangeKind>,
    pub(crate) verify: bool,
    pub(crate) confirm_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload: u32,
}

/// The broker's own default of 60 would leave a vanished broker unnoticed for two minutes.
const HEARTBEAT_SECONDS: u16 = 10;

/// RabbitMQ's own default, 128 KiB. A broker may set no limit, and the client has buffers of 32 frames.
const FRAME_MAX: u32 = 128 * 1024;

/// The specification's `frame-min-size`.
const FRAME_MIN: u32 = 4096;

impl RabbitMqConfig {
    /// The settings of a URL: the client's own `amqp://user:password@host:port/virtual-host?heartbeat=10`, plus ours under
    /// the prefix `transport.` in the query, named as the setters here. Durations read `30s` or `500ms`.
    ///
    /// Without a user it is `guest` with the password `guest`, which RabbitMQ accepts from its own machine only. Without a virtual
    /// host it is `/`; written out that is `%2f`. Of the client's options `heartbeat` is 10 seconds by default, so that a broker
    /// that has vanished is noticed after 20, and `frame_max` is 131072 bytes, RabbitMQ's own; the broker may lower both.
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
            } else if matches!(name, "frame_max" | "channel_max" | "heartbeat" | "auth_mechanism") {
                theirs.push(pair);
            } else {
                return Err(misconfigured(format!(
                    "the option `{name}` is unknown; RabbitMQ's own are `heartbeat`, `frame_max`, `channel_max` and \
                     `auth_mechanism`, and ours begin with `transport.`, such as `transport.connect_timeout`"
                )));
            }
        }
        let own = if theirs.is_empty() { place.to_owned() } else { format!("{place}?{}", theirs.join("&")) };
        // The parser's own words may repeat the URL, and with it the password.
        let mut uri: AMQPUri = own.parse().map_err(|_| {
            misconfigured(
                "the URL is malformed; it reads amqp://user:password@host:5672/virtual-host".to_owned(),
            )
        })?;
        if let Some(address) = bracketed_address(place) {
            // The client's parser would connect to localhost instead.
            uri.authority.host = address.to_owned();
        }
        if uri.vhost.is_empty() {
            // `amqp://host/?option=value` means what `amqp://host?option=value` means: nobody names a virtual host "".
            uri.vhost = "/".to_owned();
        }
        let mut config = Self::new(uri);
        let mut options = UrlOptions::new("transport.", ours);
        if let Some(exchange) = options.text("exchange")? {
            config = config.exchange(exchange);
        }
        if let Some(source) = options.text("source")? {
            config = config.source(CloudEvents::new(source)?);
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

    /// The defaults, for this address. A heartbeat that the address does not set becomes 10 seconds, and a largest frame
    /// 131072 bytes.
    pub fn new(mut uri: AMQPUri) -> Self {
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max = uri.query.frame_max.filter(|bytes| *bytes > 0).or(Some(FRAME_MAX));
        Self {
            uri,
            exchange: String::new(),
            source: None,
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

    /// Adds the attributes of a [CloudEvent](CloudEvents) with this source, beside what travels in any case: headers behind [`CloudEvents::AMQP_PREFIX`], as
    /// the binding to AMQP says, with the content type in AMQP's own property.
    /// Default: none.
    #[must_use]
    pub fn source(mut self, source: CloudEvents) -> Self {
        self.source = Some(source);
        self
    }

    /// Declares the exchange, durable, whenever a connection is made. Default: no, since topology belongs to operators.
    #[must_use]
    pub fn declare(mut self, kind: ExchangeKind) -> Self {
        self.declare = Some(kind);
        self
    }

    /// Opens only if the exchange is there, of whatever type. Default: no, so that a relay can start before its topology; messages
    /// are `Unroutable` until then.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// How long a publish waits for its next confirm while the connection lives. Default 8 s: below the relay's own limit of 10 s,
    /// so that a slow confirm is told apart from a lost connection. An alarm of memory or disk that begins while messages are in
    /// flight is waited for as long, too.
    #[must_use]
    pub fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = timeout;
        self
    }

    /// How long connecting may take, and an answer to a request that publishes nothing. Default 5 s: many round trips, and below
    /// the relay's limit of 10 s for a probe.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest payload, in bytes; a larger one is `Rejected` here. Default 16 MiB, the broker's own default
    /// (`max_message_size`) since version 4; before that it is 128 MiB. A message above the broker's limit is found too, but it
    /// makes the broker close the channel over all that are in flight with it.
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

    pub(crate) fn is_encrypted(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
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
        if self.uri.query.frame_max.is_some_and(|bytes| bytes < FRAME_MIN) {
            return Err(misconfigured(format!(
                "`frame_max` is below {FRAME_MIN} bytes, the least that AMQP allows"
            )));
        }
        if self.confirm_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(misconfigured(
                "`transport.confirm_timeout` and `transport.connect_timeout` are longer than nothing"
                    .to_owned(),
            ));
        }
        #[cfg(not(feature = "tls"))]
        if self.is_encrypted() {
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
            .field("source", &self.source)
            .field("declare", &self.declare)
            .field("verify", &self.verify)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_payload", &self.max_payload)
            .finish()
    }
}

/// What stands between brackets in `amqp://user:password@[::1]:5672`.
fn bracketed_address(place: &str) -> Option<&str> {
    let (_, authority) = place.split_once("://")?;
    let authority = authority.split('/').next()?;
    let host = authority.rsplit('@').next()?;
    host.strip_prefix('[')?.split_once(']').map(|(address, _)| address)
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
            "amqp://ann:s3cret@broker:5673/sales?heartbeat=7&transport.exchange=a%20b&transport.declare=topic&transport.confirm_timeout=500ms\
             &transport.source=/sales",
        )
        .unwrap();
        assert_eq!(config.address(), "ann@broker:5673");
        assert_eq!((config.uri.vhost.as_str(), config.uri.query.heartbeat), ("sales", Some(7)));
        assert_eq!((config.exchange.as_str(), config.declare.clone()), ("a b", Some(ExchangeKind::Topic)));
        assert_eq!(config.confirm_timeout, Duration::from_millis(500));
        assert_eq!(config.source, Some(CloudEvents::new("/sales").unwrap()));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_a_url_leaves_out() {
        for (url, address, virtual_host) in [
            ("amqp://broker", "guest@broker:5672", "/"),
            ("amqp://broker/", "guest@broker:5672", "/"),
            ("amqp://broker/?transport.exchange=x", "guest@broker:5672", "/"),
            ("amqp://ann@127.0.0.1:1/%2f", "ann@127.0.0.1:1", "/"),
            ("amqp://ann:p%40ss@[::1]:5673/sales", "ann@::1:5673", "sales"),
        ] {
            let config = RabbitMqConfig::from_url(url).unwrap();
            assert_eq!(
                (config.address().as_str(), config.uri.vhost.as_str()),
                (address, virtual_host),
                "{url}"
            );
            assert_eq!(config.uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
            assert_eq!(config.uri.query.frame_max, Some(FRAME_MAX));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("amqp://ann:s3cret@broker:port/", "malformed"),
            ("http://ann:s3cret@broker/", "malformed"),
            ("amqp://ann:s3cret@broker/?transport.exchagne=x", "transport.exchange"),
            ("amqp://ann:s3cret@broker/?exchange=x", "`exchange` is unknown"),
            ("amqp://ann:s3cret@broker/?transport.source=", "the source of CloudEvents"),
            ("amqp://ann:s3cret@broker/?connection_timeout=5", "transport.connect_timeout"),
            ("amqp://ann:s3cret@broker/?frame_max=4095", "`frame_max`"),
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
