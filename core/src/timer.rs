//! The only seam to a runtime.

use crate::Moment;
use std::future::Future;

/// Tells a relay's time and waits for it. One implementation per runtime; `pillarbox` has them.
///
/// # Contract
///
/// - `now` never goes back, and goes on while the machine sleeps: natively a boot-time clock.
/// - `sleep_until` completes soon after its moment, also where the machine slept through it.
pub trait Timer: Send + Sync {
    /// The time now.
    fn now(&self) -> Moment;

    /// Completes at `moment`, at once if it has passed.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send;
}

impl<T: Timer> Timer for std::sync::Arc<T> {
    fn now(&self) -> Moment {
        (**self).now()
    }

    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send {
        (**self).sleep_until(moment)
    }
}
