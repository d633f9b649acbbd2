use super::RelayConfig;
use crate::{Backoff, Error, ErrorKind};
use std::time::Duration;

/// The prefix of the environment's variables where no other is given.
pub const DEFAULT_PREFIX: &str = "PILLARBOX__";

/// The variables that [`RelayConfig::from_env`] reads, behind the prefix.
const KNOWN: [&str; 13] = [
    "POLLING_INTERVAL_SECONDS",
    "BATCH_SIZE",
    "MAX_RETRY_COUNT",
    "CLAIM_TIMEOUT_SECONDS",
    "PUBLISH_TIMEOUT_SECONDS",
    "CLAIMS_IN_FLIGHT",
    "PUBLISHES_IN_FLIGHT",
    "MAX_IN_FLIGHT",
    "RETRY_FIRST_SECONDS",
    "RETRY_LIMIT_SECONDS",
    "PAUSE_FIRST_SECONDS",
    "PAUSE_LIMIT_SECONDS",
    "SHUTDOWN_GRACE_SECONDS",
];

impl RelayConfig {
    /// The settings from the environment's variables that begin with `prefix` (see [`DEFAULT_PREFIX`]), the defaults where
    /// there is none, checked.
    ///
    /// `POLLING_INTERVAL_SECONDS`, `BATCH_SIZE`, `MAX_RETRY_COUNT` (failed sends until burial), `CLAIM_TIMEOUT_SECONDS` (the
    /// lease), and one for each other setting: `PUBLISH_TIMEOUT_SECONDS`, `CLAIMS_IN_FLIGHT`, `PUBLISHES_IN_FLIGHT`,
    /// `MAX_IN_FLIGHT`, `RETRY_FIRST_SECONDS`, `RETRY_LIMIT_SECONDS`, `PAUSE_FIRST_SECONDS`, `PAUSE_LIMIT_SECONDS`,
    /// `SHUTDOWN_GRACE_SECONDS`. Seconds are decimal, finite and not negative.
    ///
    /// # Errors
    /// `Misconfigured`, naming the variable: it does not parse, is out of range, or is unknown under the prefix.
    pub fn from_env(prefix: &str) -> Result<Self, Error> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str()?.strip_prefix(prefix)?.to_owned();
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::from_variables(prefix, variables)
    }

    /// As [`from_env`](Self::from_env), from names (without the prefix) and values that are given.
    ///
    /// # Errors
    /// As `from_env`.
    pub fn from_variables(
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut config = Self::default();
        let (mut retry, mut pause) = (Bounds::of(&config.retry), Bounds::of(&config.pause));
        for (name, value) in variables {
            let variable = Variable { prefix, name: &name, value: &value };
            match name.as_str() {
                "POLLING_INTERVAL_SECONDS" => config.polling_interval = variable.seconds()?,
                "BATCH_SIZE" => config.batch_size = variable.count()?,
                "MAX_RETRY_COUNT" => config.max_attempts = variable.count()?,
                "CLAIM_TIMEOUT_SECONDS" => config.lease = variable.seconds()?,
                "PUBLISH_TIMEOUT_SECONDS" => config.publish_timeout = Some(variable.seconds()?),
                "CLAIMS_IN_FLIGHT" => config.claims_in_flight = variable.count()?,
                "PUBLISHES_IN_FLIGHT" => config.publishes_in_flight = variable.count()?,
                "MAX_IN_FLIGHT" => config.max_in_flight = Some(variable.count()?),
                "RETRY_FIRST_SECONDS" => retry.first = variable.seconds()?,
                "RETRY_LIMIT_SECONDS" => retry.limit = variable.seconds()?,
                "PAUSE_FIRST_SECONDS" => pause.first = variable.seconds()?,
                "PAUSE_LIMIT_SECONDS" => pause.limit = variable.seconds()?,
                "SHUTDOWN_GRACE_SECONDS" => config.shutdown_grace = variable.seconds()?,
                _ => return Err(variable.unknown()),
            }
        }
        config.retry = Backoff::new(retry.first, retry.limit);
        config.pause = Backoff::new(pause.first, pause.limit);
        config.check().map_err(|error| {
            let description = format!("{} (environment variables {prefix}…)", error.description());
            error.describe(description)
        })?;
        Ok(config)
    }
}

struct Bounds {
    first: Duration,
    limit: Duration,
}

impl Bounds {
    fn of(backoff: &Backoff) -> Self {
        Self { first: backoff.first(), limit: backoff.limit() }
    }
}

struct Variable<'a> {
    prefix: &'a str,
    name: &'a str,
    value: &'a str,
}

impl Variable<'_> {
    fn seconds(&self) -> Result<Duration, Error> {
        let seconds: f64 =
            self.value.trim().parse().map_err(|_| self.wrong("decimal seconds, such as 1.5"))?;
        Duration::try_from_secs_f64(seconds).map_err(|_| self.wrong("finite seconds, not negative"))
    }

    fn count(&self) -> Result<u32, Error> {
        self.value.trim().parse().map_err(|_| self.wrong("a whole number"))
    }

    fn wrong(&self, expected: &str) -> Error {
        self.error(format!("{}{} is {:?}; it takes {expected}", self.prefix, self.name, self.value))
    }

    fn unknown(&self) -> Error {
        let nearest = crate::nearest(self.name, &KNOWN).unwrap_or_default();
        self.error(format!(
            "{}{} is no setting; did you mean {}{nearest}?",
            self.prefix, self.name, self.prefix
        ))
    }

    fn error(&self, description: String) -> Error {
        Error::new(ErrorKind::Misconfigured, "configure").describe(description).not_applied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<RelayConfig, Error> {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        RelayConfig::from_variables(DEFAULT_PREFIX, owned)
    }

    #[test]
    fn nothing_set_is_the_defaults() {
        assert_eq!(from(&[]).unwrap(), RelayConfig::default());
    }

    #[test]
    fn the_four_of_the_original_and_the_others() {
        let config = from(&[
            ("POLLING_INTERVAL_SECONDS", "0.25"),
            ("BATCH_SIZE", "50"),
            ("MAX_RETRY_COUNT", "7"),
            ("CLAIM_TIMEOUT_SECONDS", "300"),
            ("RETRY_FIRST_SECONDS", "2"),
        ])
        .unwrap();
        let expected = RelayConfig::default()
            .polling_interval(Duration::from_millis(250))
            .batch_size(50)
            .max_attempts(7)
            .lease(Duration::from_secs(300))
            .retry(Backoff::new(Duration::from_secs(2), Duration::from_secs(300)));
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, part) in [
            ("BATCH_SIZE", "many", "PILLARBOX__BATCH_SIZE is \"many\""),
            ("BATCH_SIZE", "0", "batch_size"),
            ("BATCH_SIZE", "-1", "PILLARBOX__BATCH_SIZE"),
            ("POLLING_INTERVAL_SECONDS", "-1", "not negative"),
            ("POLLING_INTERVAL_SECONDS", "NaN", "finite"),
            ("POLLING_INTERVAL_SECONDS", "inf", "finite"),
            ("CLAIM_TIMEOUT_SECONDS", "1e300", "finite"),
            ("BATCHSIZE", "1", "did you mean PILLARBOX__BATCH_SIZE?"),
        ] {
            let error = from(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
