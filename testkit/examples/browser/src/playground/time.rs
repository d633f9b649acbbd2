//! Virtual time, and whoever sleeps in it.

use pillarbox_core::{Moment, Timer, Timestamp};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Where the store's clock starts: in the middle of 2026.
const START: Timestamp = Timestamp::from_millis(1_782_000_000_000);

/// The world's one clock. It moves only when it is set.
#[derive(Default)]
pub(super) struct Clock {
    /// Nanoseconds since the beginning.
    now: AtomicU64,
    sleepers: Mutex<Sleepers>,
}

#[derive(Default)]
struct Sleepers {
    last: u64,
    /// By when they wake up, and by who slept first.
    waiting: BTreeMap<(u64, u64), Waker>,
}

impl Clock {
    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The same as the store's time.
    pub(super) fn store_time(&self) -> Timestamp {
        START.after(Duration::from_nanos(self.now()))
    }

    /// A point of the store's time as nanoseconds since the beginning.
    pub(super) fn since_start(at: Timestamp) -> u64 {
        nanos(at.since(START))
    }

    /// When the first sleeper wakes up.
    pub(super) fn next(&self) -> Option<u64> {
        self.sleepers().waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves on to `at`, and wakes whoever slept until then.
    pub(super) fn set(&self, at: u64) {
        self.now.fetch_max(at, Ordering::Relaxed);
        loop {
            let waker = {
                let mut sleepers = self.sleepers();
                match sleepers.waiting.first_key_value() {
                    Some(((due, _), _)) if *due <= at => sleepers.waiting.pop_first(),
                    _ => return,
                }
            };
            if let Some((_, waker)) = waker {
                waker.wake();
            }
        }
    }

    pub(super) fn sleep(self: &Arc<Self>, duration: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(nanos(duration)))
    }

    fn sleep_until(self: &Arc<Self>, until: u64) -> Sleep {
        Sleep { clock: Arc::clone(self), until, place: None }
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        // Nothing panics under the lock.
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes at a time.
pub(super) struct Sleep {
    clock: Arc<Clock>,
    until: u64,
    place: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { clock, until, place } = &mut *self;
        let mut sleepers = clock.sleepers();
        if let Some(place) = place.take() {
            sleepers.waiting.remove(&place);
        }
        if *until <= clock.now() {
            return Poll::Ready(());
        }
        sleepers.last += 1;
        let here = (*until, sleepers.last);
        sleepers.waiting.insert(here, context.waker().clone());
        *place = Some(here);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // The waker is dropped after the lock: it may own what sleeps.
            let waker = self.clock.sleepers().waiting.remove(&place);
            drop(waker);
        }
    }
}

/// The timer of a relay.
pub(super) struct VirtualTimer(pub(super) Arc<Clock>);

impl Timer for VirtualTimer {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.now())
    }

    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send {
        self.0.sleep_until(moment.as_nanos())
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) const fn from_millis(milliseconds: u64) -> u64 {
    milliseconds.saturating_mul(1_000_000)
}

/// Rounded down.
pub(super) const fn to_millis(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000
}

/// SplitMix64 (Steele, Lea, Flood 2014), one stream for each purpose, so that one more click changes no other draw.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.0 = random.draw();
        random
    }

    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `low` to below `high`, in milliseconds.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.draw() % (high - low))
    }
}
