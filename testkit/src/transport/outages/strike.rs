//! Harms the broker while a publish is on its way.

use super::{BoxError, Broker, Harm};
use pillarbox_core::{Destination, Error, Message, Outcomes, Transport, TransportGuarantees};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// What is to be done to the broker next, and what was done.
#[derive(Debug, Default)]
pub(super) struct Target {
    aim: Mutex<Option<Aim>>,
    strikes: AtomicU32,
    on_their_way: AtomicU32,
    failure: Mutex<Option<BoxError>>,
}

#[derive(Clone, Copy, Debug)]
struct Aim {
    harm: Harm,
    /// At this poll of a publish, while it still waits.
    poll: u32,
}

impl Target {
    pub(super) fn aim(&self, harm: Harm, poll: u32) {
        *locked(&self.aim) = Some(Aim { harm, poll });
    }

    /// How often the broker was harmed.
    pub(super) fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Acquire)
    }

    /// How many publishes have begun and not ended.
    pub(super) fn on_their_way(&self) -> u32 {
        self.on_their_way.load(Ordering::Acquire)
    }

    pub(super) fn failure(&self) -> Option<BoxError> {
        locked(&self.failure).take()
    }

    fn strike(&self, broker: &impl Broker, poll: u32) {
        let mut aim = locked(&self.aim);
        let Some(Aim { harm, .. }) = aim.filter(|aim| poll >= aim.poll) else { return };
        *aim = None;
        let harmed = match harm {
            Harm::Kill => broker.kill(),
            Harm::Pause => broker.pause(),
            Harm::Restart => broker.restart(),
        };
        if let Err(failure) = harmed {
            *locked(&self.failure) = Some(failure);
        }
        self.strikes.fetch_add(1, Ordering::Release);
    }

    /// A publish ended before it had so many polls: the next one is struck earlier, but not before it was polled twice.
    fn missed(&self) {
        if let Some(aim) = &mut *locked(&self.aim) {
            aim.poll = aim.poll.saturating_sub(1).max(2);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The transport, and its broker as the target.
#[derive(Debug)]
pub(super) struct Striking<'a, T, B> {
    pub(super) inner: T,
    pub(super) broker: &'a B,
    pub(super) target: Arc<Target>,
}

/// Counts a publish as on its way until it is dropped.
struct OnItsWay<'a>(&'a AtomicU32);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Transport, B: Broker> Transport for Striking<'_, T, B> {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let target = &self.target;
        target.on_their_way.fetch_add(1, Ordering::Release);
        let _counted = OnItsWay(&target.on_their_way);
        let mut publish = pin!(self.inner.publish(batch, outcomes));
        let mut polls = 0;
        std::future::poll_fn(|context| {
            let polled = publish.as_mut().poll(context);
            polls += 1;
            match polled {
                Poll::Pending => target.strike(self.broker, polls),
                Poll::Ready(()) => target.missed(),
            }
            polled
        })
        .await;
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        self.inner.probe(destination).await
    }

    fn destination(&self, message: &Message) -> Destination {
        self.inner.destination(message)
    }

    fn destinations(&self) -> Vec<Destination> {
        self.inner.destinations()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        self.inner.guarantees(destination)
    }
}
