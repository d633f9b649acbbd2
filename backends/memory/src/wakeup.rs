use crate::MemoryStorage;
use pillarbox_core::{BoxFuture, Hints, Wakeup};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

/// Everyone who waits for hints.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Vec<Weak<Signal>>>);

impl Subscribers {
    /// Hints everyone.
    pub(crate) fn hint(&self) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|subscriber| {
            let Some(signal) = subscriber.upgrade() else { return false };
            signal.raise();
            true
        });
    }

    fn subscribe(&self) -> Arc<Signal> {
        let signal = Arc::new(Signal::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&signal));
        signal
    }
}

/// A flag that can be waited for: many hints are one.
#[derive(Debug, Default)]
struct Signal(Mutex<(bool, Option<Waker>)>);

impl Signal {
    fn raise(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct MemoryHints(Arc<Signal>);

impl Hints for MemoryHints {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            if !state.1.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.1 = Some(context.waker().clone());
            }
            Poll::Pending
        }))
    }
}

impl Wakeup for MemoryStorage {
    fn subscribe(&self) -> Box<dyn Hints> {
        Box::new(MemoryHints(self.subscribers().subscribe()))
    }
}
