use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use pillarbox_core::{CloudEvents, Error, ErrorKind, UrlOptions};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of the transport to NATS.
#[derive(Clone)]
pub struct NatsConfig {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) login: Login,
    pub(crate) stream: Option<String>,
    pub(crate) source: Option<CloudEvents>,
    pub(crate) verify: bool,
    pub(crate) confirm_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload: Option<u32>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) name: String,
    pub(crate) inbox_prefix: String,
}

/// Who connects, as far as the URL says so.
#[derive(Clone)]
pub(crate) enum Login {
    Nobody,
    Password { user: String, password: String },
    Token(String),
}

impl NatsConfig {
    /// The settings of a URL: the client's own `nats://user:password@host:4222`, where `tls:` requires TLS, plus ours under the
    /// prefix `transport.` in the query, named as the setters here. Durations read `30s` or `500ms`.
    ///
    /// Several servers of a cluster are separated by commas; what stands before the `@` counts for all. Without a password what
    /// stands there is a token. Reserved characters of passwords are percent-encoded. The port is 4222 where none is written.
    ///
    /// # Errors
    /// `Misconfigured`, naming the option; an unknown one is listed with those that are known. No error shows the URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (servers, login) = servers(place)?;
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !name.starts_with("transport.") {
                return Err(misconfigured(format!(
                    "the option `{name}` is unknown; options begin with `transport.`, such as `transport.stream`"
                )));
            }
            pairs.push((name, decoded(value, name)?));
        }
        let mut config = Self {
            servers,
            login,
            stream: None,
            source: None,
            verify: false,
            confirm_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(5),
            max_payload: None,
            credentials: None,
            root_certificates: None,
            name: "pillarbox".to_owned(),
            inbox_prefix: "_INBOX".to_owned(),
        };
        let mut options = UrlOptions::new("transport.", pairs);
        if let Some(stream) = options.text("stream")? {
            config = config.stream(stream);
        }
        if let Some(source) = options.text("source")? {
            config = config.source(CloudEvents::new(source)?);
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
        if let Some(path) = options.text("credentials")? {
            config = config.credentials(path);
        }
        if let Some(path) = options.text("root_certificates")? {
            config = config.root_certificates(path);
        }
        if let Some(name) = options.text("name")? {
            config = config.name(name);
        }
        if let Some(prefix) = options.text("inbox_prefix")? {
            config = config.inbox_prefix(prefix);
        }
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The stream that must take the messages (`Nats-Expected-Stream`): where another one, or none, listens on a topic, its messages
    /// are `Unroutable`. Default: whichever stream listens.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Adds the attributes of a [CloudEvent](CloudEvents) with this source, beside what travels in any case: headers behind [`CloudEvents::HTTP_PREFIX`], as
    /// the binding to NATS says.
    /// Default: none.
    #[must_use]
    pub fn source(mut self, source: CloudEvents) -> Self {
        self.source = Some(source);
        self
    }

    /// Opens only if the [stream](Self::stream) is there. Default: no, so that a relay can start before its topology; messages
    /// are `Unroutable` until then. Needs the right to ask `$JS.API.STREAM.INFO` for it.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// How long an acknowledgement may take while the connection lives. Default 8 s: below the relay's own limit of 10 s, so
    /// that a slow acknowledgement is told apart from a lost connection.
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

    /// The largest payload, in bytes; a larger one is `Rejected` here. Default: the server's own `max_payload` (1 MiB unless it
    /// was changed), which counts headers too, less 20 KiB for the largest headers that a message may have, and with a [source](Self::source)
    /// 72 KiB.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// A file with a user's JWT and seed, as `nsc` writes it. It is read at each connection, so that it can be renewed.
    /// Default: none.
    #[must_use]
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// A PEM file with certificates of authorities that are trusted beside the system's. Default: none.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// The connection's name in the server's lists. Default: `pillarbox`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The beginning of the subjects at which answers arrive, for users whose permissions allow no other. Default: `_INBOX`, the
    /// client's own.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// Who is connected to, without a secret: `user@host:port`, several separated by commas.
    pub(crate) fn place(&self) -> String {
        let host = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        let hosts: Vec<_> = self.servers.iter().map(host).collect();
        match &self.login {
            Login::Password { user, .. } => format!("{user}@{}", hosts.join(",")),
            _ => hosts.join(","),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(stream) = &self.stream
            && (stream.is_empty()
                || stream.contains(|letter: char| letter.is_whitespace() || ".*>/\\".contains(letter)))
        {
            return Err(misconfigured(format!(
                "`transport.stream` is {stream:?}, which is no name of a stream: it has none of white space `.` `*` `>` `/` `\\`"
            )));
        }
        if self.verify && self.stream.is_none() {
            return Err(misconfigured("`transport.verify` needs `transport.stream`".to_owned()));
        }
        if self.confirm_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(misconfigured(
                "`transport.confirm_timeout` and `transport.connect_timeout` are longer than nothing"
                    .to_owned(),
            ));
        }
        if self.max_payload == Some(0) {
            return Err(misconfigured("`transport.max_payload` is more than nothing".to_owned()));
        }
        if !crate::judge::is_subject(&self.inbox_prefix) {
            return Err(misconfigured(format!(
                "`transport.inbox_prefix` is {:?}, which is no subject",
                self.inbox_prefix
            )));
        }
        if self.credentials.is_some() && !matches!(self.login, Login::Nobody) {
            return Err(misconfigured(
                "there is both `transport.credentials` and a login in the URL; give one".to_owned(),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NatsConfig")
            .field("place", &self.place())
            .field("stream", &self.stream)
            .field("source", &self.source)
            .field("verify", &self.verify)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_payload", &self.max_payload)
            .field("credentials", &self.credentials)
            .field("root_certificates", &self.root_certificates)
            .field("name", &self.name)
            .field("inbox_prefix", &self.inbox_prefix)
            .finish()
    }
}

/// The servers and the login of `nats://user:password@host:4222,other:4222/`. The client's parser knows one host only, and its
/// errors may repeat what it was given.
fn servers(place: &str) -> Result<(Vec<ServerAddr>, Login), Error> {
    let malformed = || {
        misconfigured(
            "the URL is malformed; it reads nats://user:password@host:4222,other-host:4222".to_owned(),
        )
    };
    let (scheme, rest) = place.split_once("://").ok_or_else(malformed)?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(scheme.as_str(), "nats" | "tls") || !path.is_empty() || place.contains('#') {
        return Err(malformed());
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (parse_login(login)?, hosts),
        None => (Login::Nobody, authority),
    };
    let server = |host: &str| {
        let is_host = !host.is_empty() && !host.starts_with(':');
        let parsed = format!("{scheme}://{host}").parse::<ServerAddr>().ok();
        parsed.filter(|_| is_host).ok_or_else(malformed)
    };
    Ok((hosts.split(',').map(server).collect::<Result<_, _>>()?, login))
}

fn parse_login(login: &str) -> Result<Login, Error> {
    Ok(match login.split_once(':') {
        Some((user, password)) => Login::Password {
            user: decoded(user, "the user in the URL")?,
            password: decoded(password, "the password in the URL")?,
        },
        None => Login::Token(decoded(login, "the token in the URL")?),
    })
}

fn decoded(value: &str, name: &str) -> Result<String, Error> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(Into::into)
        .map_err(|_| misconfigured(format!("the value of `{name}` is not valid percent-encoded UTF-8")))
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let config = NatsConfig::from_url(
            "nats://ann:p%40ss%3As3cret@one:4223,two/?transport.stream=ORDERS&transport.verify=true\
             &transport.source=/sales&transport.confirm_timeout=500ms&transport.max_payload=1000&transport.inbox_prefix=_IN.ann",
        )
        .unwrap();
        assert_eq!(config.place(), "ann@one:4223,two:4222");
        let Login::Password { password, .. } = &config.login else { panic!("no password") };
        assert_eq!(password, "p@ss:s3cret");
        assert_eq!((config.stream.as_deref(), config.verify), (Some("ORDERS"), true));
        assert_eq!(config.source, Some(CloudEvents::new("/sales").unwrap()));
        assert_eq!(config.confirm_timeout, Duration::from_millis(500));
        assert_eq!((config.max_payload, config.inbox_prefix.as_str()), (Some(1000), "_IN.ann"));
        assert!(!format!("{config:?}").contains("s3cret"));
        let config = NatsConfig::from_url("tls://s3cret@[::1]").unwrap();
        assert!(matches!(&config.login, Login::Token(token) if token == "s3cret"));
        assert!(!format!("{config:?}{}", config.place()).contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("nats://ann:s3cret@broker:port/", "malformed"),
            ("nats://ann:s3cret@", "malformed"),
            ("nats://ann:s3cret@one,,two", "malformed"),
            ("nats://ann:s3cret@one/path", "malformed"),
            ("http://ann:s3cret@broker/", "malformed"),
            ("nats://ann:%ffs3cret@broker", "the password in the URL"),
            ("nats://ann:s3cret@broker/?transport.steam=x", "did you mean `transport.stream`"),
            ("nats://ann:s3cret@broker/?stream=x", "`stream` is unknown"),
            ("nats://ann:s3cret@broker/?transport.stream=a.b", "`transport.stream`"),
            ("nats://ann:s3cret@broker/?transport.source=", "the source of CloudEvents"),
            ("nats://ann:s3cret@broker/?transport.verify=true", "needs `transport.stream`"),
            ("nats://ann:s3cret@broker/?transport.verify=maybe", "`transport.verify`"),
            ("nats://ann:s3cret@broker/?transport.confirm_timeout=soon", "transport.confirm_timeout"),
            ("nats://ann:s3cret@broker/?transport.connect_timeout=0s", "transport.connect_timeout"),
            ("nats://ann:s3cret@broker/?transport.max_payload=0", "transport.max_payload"),
            ("nats://ann:s3cret@broker/?transport.inbox_prefix=a..b", "transport.inbox_prefix"),
            ("nats://ann:s3cret@broker/?transport.credentials=x", "transport.credentials"),
            ("nats://ann:s3cret@broker/?transport.stream=%ff", "transport.stream"),
        ] {
            let error = NatsConfig::from_url(url).unwrap_err();
            let shown = format!("{error} {error:?} {}", error.report());
            assert!(shown.contains(part), "{url}: {shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
