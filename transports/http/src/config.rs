use crate::address;
use crate::signature::Secret;
use pillarbox_core::{CloudEvents, Error, ErrorKind, Limits, UrlOptions};
use reqwest::header::HeaderValue;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use url::{Host, Url};

/// The settings of the transport to HTTP endpoints.
#[derive(Clone)]
pub struct HttpConfig {
    pub(crate) url: Url,
    pub(crate) source: CloudEvents,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) allow_private: bool,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) probe: Option<Url>,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) max_payload: u32,
}

impl HttpConfig {
    /// The settings of a URL: the endpoint, plus our options under the prefix `transport.` in the query, named as the setters here,
    /// which are taken out of it. Durations read `30s` or `500ms`. A user and password in it become basic authentication.
    ///
    /// # Errors
    /// `Misconfigured`, naming the option; an unknown one is listed with those that are known. No error shows the URL, whose path
    /// and query may hold a secret: an endpoint is named by scheme, host and port.
    pub fn from_url(text: &str) -> Result<Self, Error> {
        let mut url = Url::parse(text).map_err(|error| {
            misconfigured(format!("the URL cannot be read ({error}); write `https://host/path`"))
        })?;
        let (ours, theirs): (Vec<_>, Vec<_>) =
            url.query_pairs().into_owned().partition(|(name, _)| name.starts_with("transport."));
        if !ours.is_empty() {
            // Only then: writing the query again may change how it is encoded.
            url.set_query(None);
            if !theirs.is_empty() {
                url.query_pairs_mut().extend_pairs(theirs);
            }
        }
        let mut config = Self::new(url)?;
        let mut options = UrlOptions::new("transport.", ours);
        config.apply(&mut options)?;
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The defaults, for this endpoint.
    ///
    /// # Errors
    /// `Misconfigured` if its scheme is neither `https` nor `http`.
    pub fn new(mut url: Url) -> Result<Self, Error> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err(misconfigured(format!(
                "the scheme `{}:` is not HTTP; write `https://host/path`",
                url.scheme()
            )));
        }
        url.set_fragment(None);
        Ok(Self {
            url,
            source: CloudEvents::new("/pillarbox")?,
            secrets: Vec::new(),
            authorization: None,
            allow_private: false,
            concurrency: 16,
            timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(2),
            probe: None,
            root_certificates: None,
            max_payload: Limits::HIGHEST_PAYLOAD,
        })
    }

    fn apply(&mut self, options: &mut UrlOptions) -> Result<(), Error> {
        if let Some(source) = options.text("source")? {
            self.source = CloudEvents::new(source)?;
        }
        if let Some(secrets) = options.text("secret")? {
            for secret in secrets.split(',') {
                self.secrets.push(Secret::parse(secret)?);
            }
        }
        if let Some(value) = options.text("authorization")? {
            self.authorization = Some(authorization(&value)?);
        }
        if let Some(allow) = options.parsed("allow_private", "`true` or `false`")? {
            self.allow_private = allow;
        }
        if let Some(requests) = options.parsed("concurrency", "a number of requests, from 1 up")? {
            self.concurrency = requests;
        }
        if let Some(timeout) = options.duration("timeout")? {
            self.timeout = timeout;
        }
        if let Some(timeout) = options.duration("connect_timeout")? {
            self.connect_timeout = timeout;
        }
        if let Some(path) = options.text("probe")? {
            *self = self.clone().probe(&path)?;
        }
        if let Some(path) = options.text("root_certificates")? {
            self.root_certificates = Some(path.into());
        }
        if let Some(bytes) = options.parsed("max_payload", "a number of bytes")? {
            self.max_payload = bytes;
        }
        Ok(())
    }

    /// The source of the CloudEvents. Default `/pillarbox`; a URI that is unique among the systems that a receiver hears.
    #[must_use]
    pub fn source(mut self, source: CloudEvents) -> Self {
        self.source = source;
        self
    }

    /// Signs every request with this secret, as Standard Webhooks does: `whsec_` and 24 to 64 bytes in base64. Given again, requests
    /// carry a signature of each, so that receivers can change from one secret to the next. Default: no signature.
    ///
    /// # Errors
    /// `Misconfigured` if it is no such secret.
    pub fn secret(mut self, secret: &str) -> Result<Self, Error> {
        self.secrets.push(Secret::parse(secret)?);
        Ok(self)
    }

    /// Sends this as the header `Authorization`, such as `Bearer TOKEN`. Default: none, or what the URL's user and password make.
    ///
    /// # Errors
    /// `Misconfigured` if a header cannot hold it.
    pub fn authorization(mut self, value: &str) -> Result<Self, Error> {
        self.authorization = Some(authorization(value)?);
        Ok(self)
    }

    /// Sends to addresses of private networks too: loopback, link-local, private and all that are not of the public internet.
    /// Default: no, since URLs that others choose would reach what only this machine can. Turn it on for endpoints of one's own.
    #[must_use]
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.allow_private = allow;
        self
    }

    /// How many requests of one publish may be on their way. Default 16; a relay has several publishes on their way, by default 4.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests;
        self
    }

    /// How long the answer to a request may take. Default 4 s. A publish begins requests for as long as this, gives those back that it
    /// could not begin, and reads the rest of an answer for a quarter of it; so it ends within 9 s, below the relay's own limit of 10 s:
    /// raise both together.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long resolving the name, connecting and TLS may take. Default 2 s. It is part of [`timeout`](Self::timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A path at the endpoint's host that answers `GET` with success while the endpoint works, and with anything else while it is
    /// down. Default: `OPTIONS` at the endpoint itself, whose every answer but 5xx and 429 is a sign of life. An endpoint that answers
    /// messages with 500 whenever its own database is away needs one, or its outages are charged to messages.
    ///
    /// # Errors
    /// `Misconfigured` if it is no path.
    pub fn probe(mut self, path: &str) -> Result<Self, Error> {
        let wrong = || misconfigured("`transport.probe` is a path, such as `/health`".to_owned());
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(wrong());
        }
        let url = self.url.join(path).map_err(|_| wrong())?;
        if url.origin() != self.url.origin() {
            return Err(wrong());
        }
        self.probe = Some(url);
        Ok(self)
    }

    /// A PEM file with certificates of authorities that are trusted beside the system's. Default: none.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// The largest payload, in bytes; a larger one is `Rejected`. Default 15 MiB, the most that an outbox holds: what an endpoint
    /// itself takes is less more often than not, and it says so by the status 413.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }

    /// The endpoint, without what may be secret: `https://host:port`.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{}://{host}:{port}", self.url.scheme()),
            None => format!("{}://{host}", self.url.scheme()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let literal = match self.url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if let Some(address) = literal
            && !self.allow_private
            && !address::is_public(address)
        {
            return Err(misconfigured(address::refusal(&self.place())));
        }
        if self.concurrency == 0 {
            return Err(misconfigured("`transport.concurrency` is 0; nothing would be sent".to_owned()));
        }
        for (name, timeout) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
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

fn authorization(value: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        misconfigured("`transport.authorization` holds what a header cannot, such as a line break".to_owned())
    })?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpConfig")
            .field("endpoint", &self.place())
            .field("source", &self.source)
            .field("secrets", &self.secrets.len())
            .field("authorization", &self.authorization.is_some())
            .field("allow_private", &self.allow_private)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("probe", &self.probe.is_some())
            .field("root_certificates", &self.root_certificates)
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
    fn everything_can_be_set_by_url_and_the_endpoint_keeps_its_own_query() {
        let config = HttpConfig::from_url(
            "https://ann:s3cret@hooks.example:8443/t0ken/in?key=s3cret&transport.source=/shop&transport.allow_private=true\
             &transport.secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx\
             &transport.authorization=Bearer%20s3cret&transport.concurrency=3&transport.timeout=500ms\
             &transport.connect_timeout=1s&transport.probe=/health?deep=1&transport.max_payload=7\
             &transport.root_certificates=/etc/ours.pem",
        )
        .unwrap();
        assert_eq!(config.url.as_str(), "https://ann:s3cret@hooks.example:8443/t0ken/in?key=s3cret");
        assert_eq!(config.place(), "https://hooks.example:8443");
        assert_eq!((config.secrets.len(), config.concurrency, config.max_payload), (2, 3, 7));
        assert_eq!(config.timeout, Duration::from_millis(500));
        assert_eq!(config.connect_timeout, Duration::from_secs(1));
        assert_eq!(config.probe.as_ref().unwrap().path(), "/health");
        assert_eq!(config.root_certificates, Some("/etc/ours.pem".into()));
        assert!(config.allow_private);
        let shown = format!("{config:?}");
        for secret in ["s3cret", "t0ken", "MfKQ"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("https://", "the URL cannot be read"),
            ("ftp://:s3cret@host/", "`ftp:` is not HTTP"),
            ("https://:s3cret@host/s3cret?transport.sauce=a", "did you mean `transport.source`?"),
            ("https://:s3cret@host/?transport.source=", "the source of CloudEvents is \"\""),
            ("https://host/?transport.secret=s3cret", "`transport.secret`"),
            ("https://host/?transport.secret=whsec_s3cret", "`transport.secret`"),
            ("https://host/?transport.authorization=s3cret%0a", "`transport.authorization`"),
            ("https://host/?transport.allow_private=perhaps", "`transport.allow_private` is \"perhaps\""),
            ("https://host/?transport.concurrency=0", "`transport.concurrency` is 0"),
            ("https://host/?transport.timeout=0s", "`transport.timeout` is zero"),
            ("https://host/?transport.connect_timeout=5", "`transport.connect_timeout` is \"5\""),
            ("https://host/?transport.probe=health", "`transport.probe`"),
            ("https://host/?transport.probe=//elsewhere/", "`transport.probe`"),
            ("https://host/?transport.max_payload=0", "`transport.max_payload` is 0"),
            ("https://127.0.0.1/", "`transport.allow_private=true`"),
            ("http://2130706433/", "`transport.allow_private=true`"),
            ("http://0x7f.1/", "`transport.allow_private=true`"),
            ("http://[::1]/", "`transport.allow_private=true`"),
            ("http://[::ffff:10.0.0.1]/", "`transport.allow_private=true`"),
            ("http://169.254.169.254/latest/meta-data", "`transport.allow_private=true`"),
        ] {
            let error = HttpConfig::from_url(url).unwrap_err();
            let report = format!("{} {error:?}", error.report());
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{report}");
            assert!(report.contains(part) && !report.contains("s3cret"), "{url}: {report}");
        }
    }
}
