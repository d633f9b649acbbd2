//! The two clocks: [`Timestamp`] is the store's, [`Moment`] the relay's. They are never compared with each other.

use std::fmt;
use std::time::Duration;

/// A point in the **store's** time: microseconds since the Unix epoch.
///
/// Leases, due times and orders are decided by the store's clock alone, so these values come from a store and go back to
/// it. Microseconds, because every store can represent them exactly (a Lua number holds them until the year 2255).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The point `microseconds` after the Unix epoch.
    pub const fn from_micros(microseconds: i64) -> Self {
        Self(microseconds)
    }

    /// The point `milliseconds` after the Unix epoch. Saturates at the ends of the range.
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds.saturating_mul(1_000))
    }

    /// The time of this machine's clock, or the browser's with the feature `js`: for times of creation, and for a store that
    /// lives in this process. Needs the feature `clock`.
    #[cfg(feature = "clock")]
    #[allow(clippy::disallowed_types, reason = "this is what the feature is for")]
    pub fn now() -> Self {
        #[cfg(not(all(feature = "js", target_family = "wasm", target_os = "unknown")))]
        use std::time::SystemTime;
        #[cfg(all(feature = "js", target_family = "wasm", target_os = "unknown"))]
        use web_time::SystemTime;
        Self::EPOCH.after(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This point, `duration` later. Saturates; what is below a microsecond is dropped.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This point, `duration` earlier. Saturates; what is below a microsecond is dropped.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:06}s", self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000))
    }
}

/// Moves a store's clock in tests: an offset that a storage adds to its server's own clock, inside the same script or
/// statement. Clones share the offset, so that every handle on one store sees the same time.
#[cfg(feature = "test-clock")]
#[derive(Clone, Debug, Default)]
pub struct TestClock(std::sync::Arc<std::sync::atomic::AtomicI64>);

#[cfg(feature = "test-clock")]
impl TestClock {
    /// An offset of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.shift(i64::try_from(by.as_micros()).unwrap_or(i64::MAX));
    }

    /// Moves the clock by `microseconds`, back if negative.
    pub fn shift(&self, microseconds: i64) {
        self.0.fetch_add(microseconds, std::sync::atomic::Ordering::SeqCst);
    }

    /// The offset now, in microseconds.
    pub fn offset(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// A point on a **relay's** own monotonic clock: nanoseconds since an arbitrary origin.
///
/// Comes from [`Timer::now`](crate::Timer::now). It should go on while the machine sleeps (natively a boot-time clock),
/// since a lease does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The origin of the clock.
    pub const ORIGIN: Self = Self(0);

    /// The moment `nanoseconds` after the clock's origin.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment, `duration` later. Saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_time_goes_both_ways_and_saturates() {
        let noon = Timestamp::from_millis(1_500);
        assert_eq!(noon.after(Duration::from_micros(7)).as_micros(), 1_500_007);
        assert_eq!(noon.before(Duration::from_secs(2)).as_millis(), -500);
        assert_eq!(noon.since(noon.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(Timestamp::from_micros(i64::MAX).after(Duration::MAX).as_micros(), i64::MAX);
        assert_eq!(format!("{:?}", Timestamp::from_micros(-1)), "-1.999999s");
    }

    #[test]
    fn relay_time_saturates() {
        let later = Moment::ORIGIN.after(Duration::from_millis(3));
        assert_eq!(later.since(Moment::ORIGIN), Duration::from_millis(3));
        assert_eq!(Moment::ORIGIN.since(later), Duration::ZERO);
        assert_eq!(later.after(Duration::MAX), Moment::from_nanos(u64::MAX));
    }
}
