use super::{clock, sleep_until};
use pillarbox_core::{Moment, Timer};

/// The timer that needs no runtime, on one thread of its own that all of them share: for smol, async-std and one's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuturesTimer(());

impl FuturesTimer {
    /// The timer of the process.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Timer for FuturesTimer {
    fn now(&self) -> Moment {
        clock::now()
    }

    async fn sleep_until(&self, moment: Moment) {
        sleep_until(moment, futures_timer::Delay::new).await;
    }
}
