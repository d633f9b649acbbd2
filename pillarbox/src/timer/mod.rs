//! The runtimes' timers, on a clock that goes on while the machine sleeps.

#[cfg(all(feature = "js", target_family = "wasm", target_os = "unknown"))]
mod browser;
mod clock;
#[cfg(feature = "futures-timer")]
mod futures;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(all(feature = "js", target_family = "wasm", target_os = "unknown"))]
pub use browser::BrowserTimer;
#[cfg(feature = "futures-timer")]
pub use futures::FuturesTimer;
#[cfg(feature = "tokio")]
pub use tokio::TokioTimer;

use pillarbox_core::Moment;
use std::time::Duration;

/// The longest single sleep. Runtimes sleep on a clock that stands still while the machine does: after it woke up, this is how
/// late a sleep can be. A relay sleeps for a second at most while it is idle, so this costs nothing.
const SLICE: Duration = Duration::from_secs(1);

/// Sleeps until `moment`, by sleeps of the runtime that are short enough to notice that the machine slept.
async fn sleep_until<S: Future<Output = ()>>(moment: Moment, sleep: impl Fn(Duration) -> S) {
    loop {
        let left = moment.since(clock::now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(SLICE)).await;
    }
}
