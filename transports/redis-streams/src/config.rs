use pillarbox_core::{CloudEvents, Error, ErrorKind, Limits, UrlOptions};
use redis::{ConnectionInfo, IntoConnectionInfo as _};
use std::fmt;
use std::time::Duration;
use url::Url;

/// The settings of the transport to Redis Streams.
#[derive(Clone)]
pub struct RedisStreamsConfig {
    pub(crate) server: ConnectionInfo,
    pub(crate) prefix: String,
    pub(crate) source: Option<CloudEvents>,
    pub(crate) create: bool,
    pub(crate) max_length: Option<u64>,
    pub(crate) replicas: u32,
    pub(crate) confirm_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload: u32,
}

const FORMS: &str =
    "`redis://user:password@host:6379/database`, `rediss://…` (feature `tls`) or `redis+unix:///path`";

impl RedisStreamsConfig {
    /// The settings of a URL: the client's own, plus ours under the prefix `transport.` in the query, named as the setters here.
    /// Durations read `30s` or `500ms`.
    ///
    /// One server, or what stands in front of it. A cluster is refused: its streams would lie on several servers, and a key whose
    /// messages go to several streams would have no order.
    ///
    /// # Errors
    /// `Misconfigured`, naming the option; an unknown one is listed with those that are known. No error shows the URL.
    pub fn from_url(text: &str) -> Result<Self, Error> {
        let mut url = Url::parse(text)
            .map_err(|error| misconfigured(format!("the URL cannot be read ({error}); write {FORMS}")))?;
        if url.scheme().ends_with("+cluster") || url.scheme().ends_with("+sentinel") {
            return Err(misconfigured(format!(
                "the scheme `{}:` is not for streams; write {FORMS}",
                url.scheme()
            )));
        }
        let (ours, theirs): (Vec<_>, Vec<_>) =
            url.query_pairs().into_owned().partition(|(name, _)| name.starts_with("transport."));
        url.set_query(None);
        if !theirs.is_empty() {
            url.query_pairs_mut().extend_pairs(theirs);
        }
        let mut config = Self::new(server(url)?);
        let mut options = UrlOptions::new("transport.", ours);
        config.apply(&mut options)?;
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The defaults, for this server.
    pub fn new(server: ConnectionInfo) -> Self {
        Self {
            server,
            prefix: String::new(),
            source: None,
            create: true,
            max_length: None,
            replicas: 0,
            confirm_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(5),
            max_payload: Limits::HIGHEST_PAYLOAD,
        }
    }

    fn apply(&mut self, options: &mut UrlOptions) -> Result<(), Error> {
        if let Some(prefix) = options.text("prefix")? {
            self.prefix = prefix;
        }
        if let Some(source) = options.text("source")? {
            self.source = Some(CloudEvents::new(source)?);
        }
        if let Some(create) = options.parsed("create", "`true` or `false`")? {
            self.create = create;
        }
        if let Some(entries) = options.parsed("max_length", "a number of entries, from 1 up")? {
            self.max_length = Some(entries);
        }
        if let Some(replicas) = options.parsed("replicas", "a number of replicas")? {
            self.replicas = replicas;
        }
        if let Some(timeout) = options.duration("confirm_timeout")? {
            self.confirm_timeout = timeout;
        }
        if let Some(timeout) = options.duration("connect_timeout")? {
            self.connect_timeout = timeout;
        }
        if let Some(bytes) = options.parsed("max_payload", "a number of bytes")? {
            self.max_payload = bytes;
        }
        Ok(())
    }

    /// What stands before the topic in the name of its stream, such as `events:`. Default: nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds the attributes of a [CloudEvent](CloudEvents) with this source, beside what travels in any case: a field each, behind [`ATTRIBUTE_PREFIX`](crate::ATTRIBUTE_PREFIX),
    /// with its value as it is, since there is no binding to Redis and its values are binary.
    /// Default: none.
    #[must_use]
    pub fn source(mut self, source: CloudEvents) -> Self {
        self.source = Some(source);
        self
    }

    /// Makes a stream that is not there yet. Default: yes. Without it (`NOMKSTREAM`) a message to such a stream is `Unroutable`,
    /// which finds topics that are misspelt.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Trims a stream to about so many entries whenever a message is added (`MAXLEN ~`, which removes whole nodes of the stream
    /// only, and so keeps some more). Default: never, since Redis trims entries that no consumer has read yet: a slow consumer
    /// would lose messages without a trace. Trim after reading instead, or set this far above what may ever wait.
    #[must_use]
    pub fn max_length(mut self, entries: u64) -> Self {
        self.max_length = Some(entries);
        self
    }

    /// How many replicas must have received a message before it counts as sent (`WAIT`). Default 0: a failover may lose what was
    /// acknowledged shortly before. With too few replicas messages are `Unavailable` and are sent again, so consumers see them twice.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long an answer may take. Default 8 s: below the relay's own limit of 10 s for a publish. The server answers in order,
    /// so that silence is never one message's fault: the connection is given up.
    #[must_use]
    pub fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = timeout;
        self
    }

    /// How long connecting may take. Default 5 s: many round trips, and below the relay's limit of 10 s for a probe.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest payload, in bytes; a larger one is `Rejected`. Default 15 MiB, the most that an outbox holds; Redis itself takes
    /// 512 MiB.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Who is connected to: host and port, or the path of a socket.
    pub(crate) fn place(&self) -> String {
        self.server.addr().to_string()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.max_length == Some(0) {
            return Err(misconfigured("`transport.max_length` is 0, and would keep nothing".to_owned()));
        }
        if self.prefix.len() > 255 {
            return Err(misconfigured("`transport.prefix` has more than 255 bytes".to_owned()));
        }
        for (name, timeout) in
            [("confirm_timeout", self.confirm_timeout), ("connect_timeout", self.connect_timeout)]
        {
            if timeout.is_zero() {
                return Err(misconfigured(format!("`transport.{name}` is zero; nothing would ever succeed")));
            }
        }
        if self.max_payload == 0 {
            return Err(misconfigured("`transport.max_payload` is 0; no message would pass".to_owned()));
        }
        Ok(())
    }
}

/// The server, read by the client's own rules.
fn server(url: Url) -> Result<ConnectionInfo, Error> {
    let lacks_tls = !cfg!(feature = "tls") && matches!(url.scheme(), "rediss" | "valkeys");
    let wrong = |error: redis::RedisError| {
        // The client's details could quote the URL.
        let hint = if lacks_tls { "; TLS needs the feature `tls`" } else { "" };
        let words = error.detail().map_or_else(|| error.to_string(), |_| error.category().to_owned());
        misconfigured(format!("the URL cannot be used ({words}){hint}; write {FORMS}"))
    };
    url.into_connection_info().map_err(wrong)
}

impl fmt::Debug for RedisStreamsConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisStreamsConfig")
            .field("server", &self.place())
            .field("prefix", &self.prefix)
            .field("source", &self.source)
            .field("create", &self.create)
            .field("max_length", &self.max_length)
            .field("replicas", &self.replicas)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_payload", &self.max_payload)
            .finish()
    }
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_set_by_url() {
        let config = RedisStreamsConfig::from_url(
            "redis://ann:s3cret@broker:7000/3?transport.prefix=events:&transport.source=/sales&transport.create=false&transport.max_length=9\
             &transport.replicas=2&transport.confirm_timeout=500ms&transport.connect_timeout=1s&transport.max_payload=7",
        )
        .unwrap();
        assert_eq!(config.place(), "broker:7000");
        assert_eq!(config.server.redis_settings().db(), 3);
        assert_eq!((config.prefix.as_str(), config.create), ("events:", false));
        assert_eq!(config.source, Some(CloudEvents::new("/sales").unwrap()));
        assert_eq!((config.max_length, config.replicas, config.max_payload), (Some(9), 2, 7));
        assert_eq!(config.confirm_timeout, Duration::from_millis(500));
        assert_eq!(config.connect_timeout, Duration::from_secs(1));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("redis://:s3cret@host:port/", "the URL cannot be read"),
            ("redis://:s3cret@host/notanumber", "the URL cannot be used"),
            ("kafka://:s3cret@host/", "the URL cannot be used"),
            ("redis+cluster://:s3cret@host/", "`redis+cluster:` is not for streams"),
            ("redis://:s3cret@host/?transport.prefixx=a", "did you mean `transport.prefix`?"),
            ("redis://:s3cret@host/?transport.source=", "the source of CloudEvents"),
            ("redis://:s3cret@host/?transport.create=maybe", "`transport.create` is \"maybe\""),
            ("redis://:s3cret@host/?transport.max_length=0", "`transport.max_length` is 0"),
            ("redis://:s3cret@host/?transport.max_length=-1", "`transport.max_length` is \"-1\""),
            ("redis://:s3cret@host/?transport.replicas=all", "`transport.replicas` is \"all\""),
            ("redis://:s3cret@host/?transport.confirm_timeout=0s", "`transport.confirm_timeout` is zero"),
            ("redis://:s3cret@host/?transport.connect_timeout=5", "`transport.connect_timeout` is \"5\""),
            ("redis://:s3cret@host/?transport.max_payload=0", "`transport.max_payload` is 0"),
        ] {
            let error = RedisStreamsConfig::from_url(url).unwrap_err();
            let report = format!("{} {error:?}", error.report());
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{report}");
            assert!(report.contains(part) && !report.contains("s3cret"), "{url}: {report}");
        }
        #[cfg(not(feature = "tls"))]
        assert!(
            RedisStreamsConfig::from_url("rediss://host/").unwrap_err().to_string().contains("feature `tls`")
        );
        #[cfg(feature = "tls")]
        assert_eq!(RedisStreamsConfig::from_url("rediss://host/").unwrap().place(), "host:6379");
    }
}
