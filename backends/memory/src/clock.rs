use pillarbox_core::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The store's clock. Clones are the same clock, so a test keeps one and moves it.
#[derive(Clone)]
pub struct MemoryClock {
    source: Source,
    /// Microseconds that are added to the source.
    offset: Arc<AtomicI64>,
}

#[derive(Clone)]
enum Source {
    Manual,
    Given(Arc<dyn Fn() -> Timestamp + Send + Sync>),
    #[cfg(feature = "clock")]
    System,
}

impl MemoryClock {
    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Self {
        Self { source: Source::Manual, offset: Arc::new(AtomicI64::new(start.as_micros())) }
    }

    /// A clock that somebody else keeps: the browser, or a simulator.
    pub fn from_source(source: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { source: Source::Given(Arc::new(source)), offset: Arc::default() }
    }

    /// The system's clock, and what it is moved on by.
    #[cfg(feature = "clock")]
    pub fn system() -> Self {
        Self { source: Source::System, offset: Arc::default() }
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Its time. A store that sees it step back goes on with the latest time it has seen.
    pub fn now(&self) -> Timestamp {
        let base = match &self.source {
            Source::Manual => Timestamp::EPOCH,
            Source::Given(source) => source(),
            #[cfg(feature = "clock")]
            Source::System => Timestamp::now(),
        };
        Timestamp::from_micros(base.as_micros().saturating_add(self.offset.load(Ordering::SeqCst)))
    }
}

impl fmt::Debug for MemoryClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryClock({:?})", self.now())
    }
}
