//! Real time, without a runtime.

use futures_timer::Delay;
use pillarbox_core::{Moment, Timer};
use std::time::Instant;

/// Counts from when it was made.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Timer for Clock {
    fn now(&self) -> Moment {
        Moment::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, moment: Moment) {
        Delay::new(moment.since(self.now())).await;
    }
}
