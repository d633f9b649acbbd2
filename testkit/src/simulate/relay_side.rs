//! What a simulated relay is given: its timer, its surroundings, and the plan of what goes wrong with its calls.

use super::kernel::{Kernel, Owner, Sleep};
use crate::choices::Choices;
use crate::fault::{Fault, FaultPlan, Injection, Operation, SeededPlan, Surroundings};
use crate::history::{Event, Recorder};
use pillarbox_core::{BoxFuture, ErrorKind, Moment, Timer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A relay's own clock.
pub(super) struct VirtualTimer {
    pub(super) kernel: Arc<Kernel>,
    pub(super) owner: Owner,
}

impl Timer for VirtualTimer {
    fn now(&self) -> Moment {
        self.kernel.moment(self.owner)
    }

    fn sleep_until(&self, moment: Moment) -> impl Future<Output = ()> + Send {
        Sleep::new(Arc::clone(&self.kernel), self.owner, moment.as_nanos())
    }
}

/// The world around a relay's faults.
pub(super) struct Around {
    pub(super) kernel: Arc<Kernel>,
    pub(super) owner: Owner,
    pub(super) recorder: Recorder,
}

impl Surroundings for Around {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::during(Arc::clone(&self.kernel), duration))
    }

    fn later(&self, effect: BoxFuture<'static, ()>) {
        let recorder = self.recorder.clone();
        self.kernel.spawn(Box::pin(async move {
            effect.await;
            recorder.note(Event::LateEffect);
        }));
    }

    fn pause(&self, duration: Duration) {
        self.recorder.note(Event::Paused { micros: u64::try_from(duration.as_micros()).unwrap_or(0) });
        self.kernel.pause(self.owner, duration);
    }
}

/// What can be cut off from a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Store,
    Broker,
}

/// The state of one relay's surroundings that all its plans share.
#[derive(Default)]
pub(super) struct Weather {
    store_away_until: AtomicU64,
    broker_away_until: AtomicU64,
    broker_slow_until: AtomicU64,
    /// Everything is healed: no fault any more.
    calm: AtomicBool,
    /// The messages of the publish that is about to be drawn for.
    batch: Mutex<Vec<u32>>,
}

impl Weather {
    pub(super) fn cut(&self, side: Side, until: u64) {
        let away = match side {
            Side::Store => &self.store_away_until,
            Side::Broker => &self.broker_away_until,
        };
        away.fetch_max(until, Ordering::Relaxed);
    }

    pub(super) fn slow_down(&self, until: u64) {
        self.broker_slow_until.fetch_max(until, Ordering::Relaxed);
    }

    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// The next fault of a publish is one of these messages'.
    pub(super) fn publishes(&self, messages: impl Iterator<Item = u32>) {
        let mut batch = self.batch();
        batch.clear();
        batch.extend(messages);
    }

    fn batch(&self) -> MutexGuard<'_, Vec<u32>> {
        // Nothing panics under the lock.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seed's faults for one relay, and those of the weather.
pub(super) struct WorldPlan {
    pub(super) seeded: SeededPlan,
    pub(super) choices: Choices,
    pub(super) kernel: Arc<Kernel>,
    pub(super) owner: Owner,
    pub(super) weather: Arc<Weather>,
    pub(super) recorder: Recorder,
}

const SITE_PARTITION: u16 = 1;
const SITE_SLOW: u16 = 2;

impl WorldPlan {
    /// A request is lost, or its answer, or the connection is refused.
    fn partitioned(&self) -> Fault {
        let kind = ErrorKind::Unavailable;
        match self.choices.below(self.owner, SITE_PARTITION, 4) {
            0 => Fault::Refused(kind),
            1 => Fault::FailBefore(kind),
            2 => Fault::HangBefore,
            _ => Fault::HangAfter,
        }
    }

    fn decide(&self, operation: Operation) -> Injection {
        if self.weather.calm.load(Ordering::Relaxed) {
            return Injection { request: Duration::from_micros(500), ..Injection::default() };
        }
        let mut injection = self.seeded.draw(operation);
        let now = self.kernel.now();
        let at_broker = matches!(operation, Operation::Publish | Operation::Probe);
        let away = if at_broker { &self.weather.broker_away_until } else { &self.weather.store_away_until };
        if away.load(Ordering::Relaxed) > now {
            injection.fault = self.partitioned();
        }
        if at_broker && self.weather.broker_slow_until.load(Ordering::Relaxed) > now {
            injection.request += Duration::from_millis(self.choices.below(self.owner, SITE_SLOW, 200));
        }
        injection
    }
}

impl FaultPlan for WorldPlan {
    fn draw(&self, operation: Operation) -> Injection {
        let injection = self.decide(operation);
        if injection.fault != Fault::None {
            if operation == Operation::Publish {
                for message in self.weather.batch().drain(..) {
                    self.recorder.note(Event::Disturbed { message });
                }
            }
            self.recorder.note(Event::Injected { operation, fault: injection.fault });
        }
        injection
    }
}
