use crate::{Backoff, Error, ErrorKind};
use std::time::Duration;

/// The settings of a relay. Every setter states its default and why; [`check`](Self::check) holds them against each other.
///
/// ```
/// # use pillarbox_core::RelayConfig;
/// # use std::time::Duration;
/// let config = RelayConfig::default().batch_size(500).lease(Duration::from_secs(60));
/// config.check()?;
/// # Ok::<(), pillarbox_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    pub(crate) batch_size: u32,
    pub(crate) polling_interval: Duration,
    pub(crate) max_attempts: u32,
    pub(crate) lease: Duration,
    pub(crate) publish_timeout: Option<Duration>,
    pub(crate) claims_in_flight: u32,
    pub(crate) publishes_in_flight: u32,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) retry: Backoff,
    pub(crate) pause: Backoff,
    pub(crate) shutdown_grace: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch_size: 100,
            polling_interval: Duration::from_secs(1),
            max_attempts: 5,
            lease: Duration::from_secs(30),
            publish_timeout: None,
            claims_in_flight: 3,
            publishes_in_flight: 4,
            max_in_flight: None,
            retry: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            pause: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl RelayConfig {
    /// How many messages one claim asks for, 1 to 1,000. Default 100: large enough that round trips do not count, small
    /// enough that one call never holds the store up.
    #[must_use]
    pub fn batch_size(mut self, messages: u32) -> Self {
        self.batch_size = messages;
        self
    }

    /// How long an idle relay waits before it claims again without a hint. Default 1 s: the floor of the latency when every
    /// hint is lost.
    #[must_use]
    pub fn polling_interval(mut self, interval: Duration) -> Self {
        self.polling_interval = interval;
        self
    }

    /// How many failed sends bury a message. Default 5. Outages are not counted, whatever this is.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How long a claim is this relay's without a renewal. Default 30 s: leases are renewed, so this is only how long the
    /// messages of a killed relay wait for another one.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a publish may take before it is cut off and its missing outcomes count as unknown. Default 10 s or half of the
    /// lease, whichever is shorter; at most two thirds of the lease, so that a lease is renewed while its publish runs.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = Some(timeout);
        self
    }

    /// How many claims may be on their way at once while there is more work than a batch. Default 3: one is answered while
    /// the messages of another are sent and those of a third are settled. On PostgreSQL and MongoDB a relay
    /// drains about a tenth more than with 2.
    #[must_use]
    pub fn claims_in_flight(mut self, claims: u32) -> Self {
        self.claims_in_flight = claims;
        self
    }

    /// How many publishes may be on their way at once, for each destination. Default 4.
    #[must_use]
    pub fn publishes_in_flight(mut self, publishes: u32) -> Self {
        self.publishes_in_flight = publishes;
        self
    }

    /// How many messages the relay holds at most, claimed and not yet settled. Default: six batches. This bounds the
    /// relay's memory, and the duplicates that its death can cause.
    #[must_use]
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.max_in_flight = Some(messages);
        self
    }

    /// How long a message waits after each failed send: exponential, with full jitter, kept by the store. Default 1 s,
    /// doubled each time up to 5 minutes.
    #[must_use]
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.retry = backoff;
        self
    }

    /// How long a destination or the store is left alone after it failed, before it is probed again. Default 100 ms, doubled
    /// each time up to 30 s.
    #[must_use]
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.pause = backoff;
        self
    }

    /// How long a shutdown waits for what is being sent before it cuts it off. Default 10 s. Reporting to the store may take
    /// as long again.
    #[must_use]
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// How many messages the relay holds at most.
    pub(crate) fn held_at_most(&self) -> u32 {
        self.max_in_flight.unwrap_or(self.batch_size.saturating_mul(6))
    }

    /// How long a publish may take.
    pub(crate) fn publish_at_most(&self) -> Duration {
        self.publish_timeout.unwrap_or_else(|| Duration::from_secs(10).min(self.lease / 2))
    }

    /// Holds the settings against their ranges and against each other.
    ///
    /// # Errors
    /// `Misconfigured`, naming the settings.
    pub fn check(&self) -> Result<(), Error> {
        let day = Duration::from_secs(24 * 60 * 60);
        in_range("batch_size", self.batch_size, 1, 1_000)?;
        in_range("max_attempts", self.max_attempts, 1, 1_000_000)?;
        in_range("claims_in_flight", self.claims_in_flight, 1, 16)?;
        in_range("publishes_in_flight", self.publishes_in_flight, 1, 64)?;
        in_range("max_in_flight", self.held_at_most(), self.batch_size, 1_000_000)?;
        in_range("polling_interval", self.polling_interval, Duration::from_millis(1), day)?;
        in_range("lease", self.lease, Duration::from_millis(10), day)?;
        in_range("publish_timeout", self.publish_at_most(), Duration::from_millis(1), day)?;
        in_range("shutdown_grace", self.shutdown_grace, Duration::ZERO, day)?;
        self.retry.check("retry")?;
        self.pause.check("pause")?;
        if self.publish_at_most() > self.lease * 2 / 3 {
            return Err(misconfigured(format!(
                "`publish_timeout` is {:?} and `lease` {:?}; a publish may take at most two thirds of a lease",
                self.publish_at_most(),
                self.lease
            )));
        }
        Ok(())
    }
}

fn in_range<T: PartialOrd + Copy + std::fmt::Debug>(
    name: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Error> {
    if value < low || value > high {
        return Err(misconfigured(format!("`{name}` is {value:?}; set it to {low:?} to {high:?}")));
    }
    Ok(())
}

fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "configure").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold() {
        RelayConfig::default().check().unwrap();
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let second = Duration::from_secs(1);
        for (config, name) in [
            (RelayConfig::default().batch_size(0), "batch_size"),
            (RelayConfig::default().batch_size(1_001), "batch_size"),
            (RelayConfig::default().max_attempts(0), "max_attempts"),
            (RelayConfig::default().claims_in_flight(0), "claims_in_flight"),
            (RelayConfig::default().publishes_in_flight(0), "publishes_in_flight"),
            (RelayConfig::default().max_in_flight(99), "max_in_flight"),
            (RelayConfig::default().polling_interval(Duration::ZERO), "polling_interval"),
            (RelayConfig::default().lease(Duration::ZERO), "lease"),
            (RelayConfig::default().retry(Backoff::new(second, Duration::ZERO)), "retry"),
            (RelayConfig::default().lease(second).publish_timeout(second), "publish_timeout"),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
