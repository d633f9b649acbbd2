//! Observers: what a relay does, for people, for dashboards and for programs.

mod counting;
#[cfg(feature = "metrics")]
mod metrics;
mod several;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
#[cfg(feature = "tracing")]
pub use self::tracing::TracingObserver;
pub use counting::{CountingObserver, Counts};
pub use several::Observers;
