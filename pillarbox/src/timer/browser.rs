use super::{clock, sleep_until};
use gloo_timers::callback::Timeout;
use pillarbox_core::{Moment, Timer};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The timer for browsers, and for whatever else has `setTimeout` and `performance.now`: Node, Deno, workers.
///
/// A page in the background is given its timers late, by a second and more. A relay there is slow, and still correct: leases
/// are the store's.
///
/// It is `Send`, as the relay's other parts are. Futures of JavaScript become so in `send_wrapper::SendWrapper`: a transport
/// over `fetch` awaits them in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrowserTimer(());

impl BrowserTimer {
    /// The timer of the page or worker that it is used in.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Timer for BrowserTimer {
    fn now(&self) -> Moment {
        clock::now()
    }

    async fn sleep_until(&self, moment: Moment) {
        sleep_until(moment, Sleep::new).await;
    }
}

thread_local! {
    static TIMEOUTS: RefCell<Timeouts> = RefCell::default();
}

/// What waits on this thread. JavaScript's handles stay here, so that a [`Sleep`] is `Send`: it knows a number.
#[derive(Default)]
struct Timeouts {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    /// `None` once its time has come.
    waker: Option<Waker>,
    /// Dropping it clears it.
    _timeout: Timeout,
}

/// Completes after a while. Moved to another worker it begins anew there.
struct Sleep {
    duration: Duration,
    number: Option<u64>,
}

impl Sleep {
    const fn new(duration: Duration) -> Self {
        Self { duration, number: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        TIMEOUTS.with_borrow_mut(|timeouts| {
            if let Some(waiting) = self.number.and_then(|number| timeouts.waiting.get_mut(&number)) {
                return match &mut waiting.waker {
                    None => Poll::Ready(()),
                    Some(waker) => {
                        waker.clone_from(context.waker());
                        Poll::Pending
                    }
                };
            }
            timeouts.last += 1;
            let number = timeouts.last;
            let timeout = Timeout::new(milliseconds(self.duration), move || fire(number));
            let waker = Some(context.waker().clone());
            timeouts.waiting.insert(number, Waiting { waker, _timeout: timeout });
            self.number = Some(number);
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // It is dropped outside of the borrow, and not at all while the thread ends.
            let _waiting =
                TIMEOUTS.try_with(|timeouts| timeouts.borrow_mut().waiting.remove(&number)).ok().flatten();
        }
    }
}

/// Called by the browser. The entry stays for the sleeper to find, and the waker runs without the table borrowed.
fn fire(number: u64) {
    let waker = TIMEOUTS.with_borrow_mut(|timeouts| {
        timeouts.waiting.get_mut(&number).and_then(|waiting| waiting.waker.take())
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Rounded up, so that a sleep is never short and then spins.
fn milliseconds(duration: Duration) -> u32 {
    // `setTimeout` takes a signed number of 32 bits; the callers' slices are far shorter.
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX / 2).min(u32::MAX / 2)
}
