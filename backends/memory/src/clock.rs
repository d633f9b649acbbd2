use pillarbox_core::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The store's clock. Clones share it, so that whoever moves one moves all.
#[derive(Clone)]
pub struct MemoryClock {
    source: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    offset: Arc<AtomicI64>,
}

impl MemoryClock {
    /// The system's clock.
    #[cfg(feature = "clock")]
    pub fn system() -> Self {
        Self::from_source(|| {
            Timestamp::EPOCH.after(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
        })
    }

    /// A clock that stands at the beginning of 2020 until it is moved.
    pub fn manual() -> Self {
        Self::from_source(|| Timestamp::from_millis(1_577_836_800_000))
    }

    /// A clock that somebody else keeps: a simulator, or the browser.
    pub fn from_source(source: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), offset: Arc::default() }
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.shift(i64::try_from(by.as_micros()).unwrap_or(i64::MAX));
    }

    /// Moves the clock by `microseconds`, back if negative.
    pub fn shift(&self, microseconds: i64) {
        self.offset.fetch_add(microseconds, Ordering::SeqCst);
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros((self.source)().as_micros().saturating_add(self.offset.load(Ordering::SeqCst)))
    }
}

impl fmt::Debug for MemoryClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryClock({:?})", self.now())
    }
}
