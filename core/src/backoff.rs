//! How long to wait after a failure.

use crate::{Error, ErrorKind};
use std::time::Duration;

/// Exponential backoff with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the ceiling
/// doubles with every failure up to a limit, and the wait is drawn between the floor and the ceiling, so that relays that
/// failed together do not come back together. The floor is half of the first ceiling: a wait is never nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
}

impl Backoff {
    /// Waits of up to `first` after the first failure, doubled each time up to `limit`.
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit }
    }

    /// The longest wait after `failures` failures; at least 1 is assumed.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.limit)
    }

    /// The wait after `failures` failures, drawn by `random`, which is uniform over all values.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let (floor, ceiling) = (self.first / 2, self.ceiling(failures));
        let width = u64::try_from(ceiling.saturating_sub(floor).as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(width) * u128::from(random)) >> 64;
        floor + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// The first ceiling.
    pub const fn first(&self) -> Duration {
        self.first
    }

    /// The highest ceiling.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        if self.first < Duration::from_millis(1) || self.first > self.limit {
            return Err(Error::new(ErrorKind::Misconfigured, "configure")
                .describe(format!(
                    "`{name}` waits {:?} at first and {:?} at most; the first is at least 1ms and not above the second",
                    self.first, self.limit
                ))
                .not_applied());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let ceilings: Vec<_> = [0, 1, 2, 6, 7, 1_000].iter().map(|n| backoff.ceiling(*n).as_secs()).collect();
        assert_eq!(ceilings, [1, 1, 2, 32, 60, 60]);
    }

    #[test]
    fn jitter_covers_the_range_and_is_never_nothing() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(backoff.delay(3, 0), Duration::from_millis(500));
        assert_eq!(backoff.delay(3, u64::MAX).as_millis(), 3_999);
        let endless = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(endless.delay(9, 0), Duration::MAX / 2);
        assert!(endless.delay(9, u64::MAX) >= Duration::MAX / 2);
    }
}
