use super::{clock, sleep_until};
use pillarbox_core::{Moment, Timer};

/// The timer for tokio. The relay's future has to run within a tokio runtime whose `time` is enabled.
///
/// ```
/// # use pillarbox::{Timer, TokioTimer};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let timer = TokioTimer::new();
/// let soon = timer.now().after(std::time::Duration::from_millis(5));
/// timer.sleep_until(soon).await;
/// assert!(timer.now() >= soon);
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTimer(());

impl TokioTimer {
    /// The timer of the runtime that it is used in.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Moment {
        clock::now()
    }

    async fn sleep_until(&self, moment: Moment) {
        sleep_until(moment, tokio::time::sleep).await;
    }
}
