use percent_encoding::percent_decode_str;
use pillarbox_core::{CloudEvents, Error, ErrorKind, UrlOptions};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The settings of the transport to Kafka.
#[derive(Clone)]
pub struct KafkaConfig {
    pub(crate) brokers: Vec<String>,
    pub(crate) login: Option<Login>,
    pub(crate) source: CloudEvents,
    pub(crate) confirm_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload: u32,
    pub(crate) create_topics: bool,
    pub(crate) client_id: String,
    pub(crate) sasl: Sasl,
    pub(crate) tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    /// librdkafka's own, checked only against those that the transport sets.
    pub(crate) properties: Vec<(String, String)>,
}

#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// How a user proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// The password itself: use it with TLS.
    Plain,
    /// SCRAM-SHA-256. Needs the feature `tls`.
    ScramSha256,
    /// SCRAM-SHA-512. Needs the feature `tls`.
    ScramSha512,
}

impl Sasl {
    pub(crate) const fn mechanism(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for Sasl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|sasl| sasl.mechanism().eq_ignore_ascii_case(text))
            .ok_or(())
    }
}

/// What librdkafka takes in a setting of milliseconds.
const LONGEST: Duration = Duration::from_secs(900);

/// A broker takes 1,048,588 bytes by default, with headers and key, for which 20 KiB are kept.
const MAX_PAYLOAD: u32 = 1_048_588 - ROOM;

/// The room beside the payload: 16 KiB of headers, key, id, content type, and the frame of a record.
pub(crate) const ROOM: u32 = 20 * 1024;

/// What librdkafka takes as a message.
const LARGEST: u32 = 1_000_000_000 - ROOM;

/// The settings of librdkafka that the transport's promises stand on, or that it has a name of its own for.
const OWN: [(&str, &str); 22] = [
    ("bootstrap.servers", "the hosts of the URL"),
    ("metadata.broker.list", "the hosts of the URL"),
    ("sasl.username", "the user of the URL"),
    ("sasl.password", "the password of the URL"),
    ("sasl.mechanism", "`transport.sasl`"),
    ("sasl.mechanisms", "`transport.sasl`"),
    ("security.protocol", "`transport.tls` and the user of the URL"),
    ("ssl.ca.location", "`transport.root_certificates`"),
    ("ssl.certificate.location", "`transport.client_certificate`"),
    ("ssl.key.location", "`transport.client_key`"),
    ("client.id", "`transport.client_id`"),
    ("message.timeout.ms", "`transport.confirm_timeout`"),
    ("delivery.timeout.ms", "`transport.confirm_timeout`"),
    ("message.max.bytes", "`transport.max_payload`"),
    ("allow.auto.create.topics", "`transport.create_topics`"),
    ("topic.metadata.propagation.max.ms", "the transport"),
    ("enable.idempotence", "the transport"),
    ("enable.gapless.guarantee", "the transport"),
    ("acks", "the transport"),
    ("request.required.acks", "the transport"),
    ("transactional.id", "the transport"),
    ("delivery.report.only.error", "the transport"),
];

impl KafkaConfig {
    /// The settings of a URL: `kafka://user:password@host:9092,other-host:9092`, plus ours under the prefix `transport.` in the query,
    /// named as the setters here, plus librdkafka's own by their names, such as `compression.codec=lz4`. Durations of ours read
    /// `30s` or `500ms`.
    ///
    /// With a user the connection is authenticated by [SASL](Self::sasl). Reserved characters of passwords are percent-encoded.
    /// The port is 9092 where none is written.
    ///
    /// # Errors
    /// `Misconfigured`, naming the option; an unknown one of ours is listed with those that are known. No error shows the URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (brokers, login) = brokers(place)?;
        let (mut ours, mut properties) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let pair = (name.to_owned(), decoded(value, name)?);
            if name.starts_with("transport.") { ours.push(pair) } else { properties.push(pair) }
        }
        let mut config = Self {
            brokers,
            login,
            source: CloudEvents::new("/pillarbox")?,
            confirm_timeout: Duration::from_secs(7),
            connect_timeout: Duration::from_secs(5),
            max_payload: MAX_PAYLOAD,
            create_topics: false,
            client_id: "pillarbox".to_owned(),
            sasl: Sasl::Plain,
            tls: false,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            properties: Vec::new(),
        };
        for (name, value) in properties {
            config = config.property(name, value);
        }
        config.take(UrlOptions::new("transport.", ours))?;
        config.check()?;
        Ok(config)
    }

    fn take(&mut self, mut options: UrlOptions) -> Result<(), Error> {
        if let Some(source) = options.text("source")? {
            self.source = CloudEvents::new(source)?;
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
        if let Some(create) = options.parsed("create_topics", "`true` or `false`")? {
            self.create_topics = create;
        }
        if let Some(id) = options.text("client_id")? {
            self.client_id = id;
        }
        let sasl = options.parsed("sasl", "`plain`, `scram-sha-256` or `scram-sha-512`")?;
        if sasl.is_some() && self.login.is_none() {
            return Err(misconfigured("`transport.sasl` needs a user and a password in the URL".to_owned()));
        }
        self.sasl = sasl.unwrap_or(self.sasl);
        if let Some(tls) = options.parsed("tls", "`true` or `false`")? {
            self.tls = tls;
        }
        self.root_certificates = options.text("root_certificates")?.map(Into::into);
        self.client_certificate = options.text("client_certificate")?.map(Into::into);
        self.client_key = options.text("client_key")?.map(Into::into);
        options.finish()
    }

    /// The source of the CloudEvents. Default `/pillarbox`; a URI that is unique among the systems that a consumer hears.
    #[must_use]
    pub fn source(mut self, source: CloudEvents) -> Self {
        self.source = source;
        self
    }

    /// How long a confirmation may take while the connection lives, with all that the producer repeats by itself. Default 7 s: librdkafka
    /// notices up to a second later, which is below the relay's own limit of 10 s, so that a slow confirmation is told apart from
    /// a lost connection.
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

    /// The largest payload, in bytes; a larger one is `Rejected` here. Default 1,028,108: a broker's own default of `message.max.bytes`,
    /// which counts headers and key too, less 20 KiB for them. A topic may have a lower limit, which its broker tells.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Lets the broker create topics that are not there, if its `auto.create.topics.enable` allows it too. Default: no, so that a
    /// message whose topic is misspelt is `Unroutable` instead of lying where nobody looks.
    #[must_use]
    pub fn create_topics(mut self, create: bool) -> Self {
        self.create_topics = create;
        self
    }

    /// The name in the broker's logs and quotas. Default: `pillarbox`.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// How the user of the URL proves itself. Default: [`Sasl::Plain`], which every broker with SASL and passwords has.
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = sasl;
        self
    }

    /// Connects by TLS. Default: no. Needs the feature `tls`.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// A PEM file with certificates of the authorities that are trusted. Default: the system's.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// PEM files with a certificate that proves the client, and its key. Default: none.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some(certificate.into());
        self.client_key = Some(key.into());
        self
    }

    /// A setting of librdkafka by its own name. Those that the transport's promises stand on are refused at the opening. Default: none
    /// but these, which may be set otherwise: `linger.ms=0`, since a relay publishes in batches and waits for them,
    /// and `partitioner=murmur2_random`, which puts a key where Kafka's own clients put it.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Who is connected to, without a secret: `user@host:port`, several separated by commas.
    pub(crate) fn place(&self) -> String {
        let brokers = self.brokers.join(",");
        match &self.login {
            Some(login) => format!("{}@{brokers}", login.user),
            None => brokers,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, timeout) in
            [("confirm_timeout", self.confirm_timeout), ("connect_timeout", self.connect_timeout)]
        {
            if timeout < Duration::from_millis(1) || timeout > LONGEST {
                return Err(misconfigured(format!("`transport.{name}` is between 1ms and 15m")));
            }
        }
        if !(1..=LARGEST).contains(&self.max_payload) {
            return Err(misconfigured(format!("`transport.max_payload` is between 1 and {LARGEST}")));
        }
        if !cfg!(feature = "tls") && (self.tls || self.sasl != Sasl::Plain) {
            return Err(misconfigured(
                "`transport.tls` and SCRAM need the feature `tls` of this program".to_owned(),
            ));
        }
        if !self.tls && (self.root_certificates.is_some() || self.client_certificate.is_some()) {
            return Err(misconfigured(
                "`transport.root_certificates` and `transport.client_certificate` need `transport.tls=true`"
                    .to_owned(),
            ));
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return Err(misconfigured(
                "`transport.client_certificate` and `transport.client_key` need each other".to_owned(),
            ));
        }
        for (name, _) in &self.properties {
            if let Some((name, setter)) = OWN.iter().find(|(own, _)| own == name) {
                return Err(misconfigured(format!("the setting `{name}` belongs to {setter}")));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A secret may be among librdkafka's own.
        let properties: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        formatter
            .debug_struct("KafkaConfig")
            .field("place", &self.place())
            .field("source", &self.source)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_payload", &self.max_payload)
            .field("create_topics", &self.create_topics)
            .field("client_id", &self.client_id)
            .field("sasl", &self.sasl)
            .field("tls", &self.tls)
            .field("root_certificates", &self.root_certificates)
            .field("client_certificate", &self.client_certificate)
            .field("properties", &properties)
            .finish_non_exhaustive()
    }
}

/// The brokers and the login of `kafka://user:password@host:9092,other:9092`.
fn brokers(place: &str) -> Result<(Vec<String>, Option<Login>), Error> {
    let malformed = || {
        misconfigured(
            "the URL is malformed; it reads kafka://user:password@host:9092,other-host:9092".to_owned(),
        )
    };
    let (scheme, rest) = place.split_once("://").ok_or_else(malformed)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !scheme.eq_ignore_ascii_case("kafka") || !path.is_empty() || place.contains('#') {
        return Err(malformed());
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').ok_or_else(malformed)?;
            let user = decoded(user, "the user in the URL")?;
            (Some(Login { user, password: decoded(password, "the password in the URL")? }), hosts)
        }
        None => (None, authority),
    };
    let broker = |host: &str| {
        let (name, port) = match host.rsplit_once(':') {
            // Within the brackets of an IPv6 address.
            Some((_, port)) if port.ends_with(']') => (host, "9092"),
            Some(parts) => parts,
            None => (host, "9092"),
        };
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
        let port: u16 = port.parse().map_err(|_| malformed())?;
        if is_name { Ok(format!("{name}:{port}")) } else { Err(malformed()) }
    };
    Ok((hosts.split(',').map(broker).collect::<Result<_, _>>()?, login))
}

fn decoded(value: &str, name: &str) -> Result<String, Error> {
    let wrong = || misconfigured(format!("the value of `{name}` is not valid percent-encoded UTF-8"));
    let text = percent_decode_str(value).decode_utf8().map_err(|_| wrong())?;
    // librdkafka takes texts up to their first zero.
    if text.contains('\0') { Err(wrong()) } else { Ok(text.into_owned()) }
}

pub(crate) fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let config = KafkaConfig::from_url(
            "kafka://ann:p%40ss%3As3cret@one:9093,two,[::1],[::1]:9/?transport.source=/orders&transport.sasl=plain\
             &transport.confirm_timeout=500ms&transport.max_payload=1000&compression.codec=lz4&sasl.x=s3cret",
        )
        .unwrap();
        assert_eq!(config.place(), "ann@one:9093,two:9092,[::1]:9092,[::1]:9");
        assert_eq!(config.login.as_ref().unwrap().password, "p@ss:s3cret");
        assert_eq!(config.confirm_timeout, Duration::from_millis(500));
        assert_eq!((config.max_payload, config.sasl, config.tls), (1000, Sasl::Plain, false));
        assert_eq!(config.properties[0], ("compression.codec".to_owned(), "lz4".to_owned()));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (url, part) in [
            ("kafka://ann:s3cret@broker:port/", "malformed"),
            ("kafka://ann:s3cret@", "malformed"),
            ("kafka://s3cret@one", "malformed"),
            ("kafka://ann:s3cret@one,,two", "malformed"),
            ("kafka://ann:s3cret@one/path", "malformed"),
            ("kafka://ann:s3cret@one two", "malformed"),
            ("http://ann:s3cret@broker/", "malformed"),
            ("kafka://ann:%ffs3cret@broker", "the password in the URL"),
            ("kafka://ann:%00s3cret@broker", "the password in the URL"),
            ("kafka://ann:s3cret@broker?transport.sorce=x", "did you mean `transport.source`"),
            ("kafka://ann:s3cret@broker?transport.source=", "the source of CloudEvents"),
            ("kafka://ann:s3cret@broker?transport.create_topics=maybe", "`transport.create_topics`"),
            ("kafka://ann:s3cret@broker?transport.confirm_timeout=soon", "transport.confirm_timeout"),
            ("kafka://ann:s3cret@broker?transport.confirm_timeout=1h", "transport.confirm_timeout"),
            ("kafka://ann:s3cret@broker?transport.connect_timeout=0s", "transport.connect_timeout"),
            ("kafka://ann:s3cret@broker?transport.max_payload=0", "transport.max_payload"),
            ("kafka://ann:s3cret@broker?transport.sasl=gssapi", "transport.sasl"),
            ("kafka://broker?transport.sasl=plain", "transport.sasl"),
            ("kafka://ann:s3cret@broker?transport.root_certificates=x", "transport.tls"),
            ("kafka://ann:s3cret@broker?sasl.password=s3cret", "the password of the URL"),
            ("kafka://ann:s3cret@broker?acks=1", "`acks`"),
            ("kafka://ann:s3cret@broker?delivery.report.only.error=true", "`delivery.report.only.error`"),
            ("kafka://ann:s3cret@broker?enable.idempotence=false", "`enable.idempotence`"),
        ] {
            let error = KafkaConfig::from_url(url).unwrap_err();
            let shown = format!("{error} {error:?} {}", error.report());
            assert!(shown.contains(part), "{url}: {shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn without_tls_it_is_refused() {
        for option in ["transport.tls=true", "transport.sasl=scram-sha-512"] {
            let error = KafkaConfig::from_url(&format!("kafka://ann:x@broker?{option}")).unwrap_err();
            assert!(error.to_string().contains("the feature `tls`"), "{error}");
        }
    }
}
