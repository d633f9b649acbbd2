use crate::storage::MemoryStorage;
use futures_util::task::AtomicWaker;
use pillarbox_core::{BoxFuture, Hints, Wakeup};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

/// Everyone who wants to hear of commits.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Weak<Signal>>);

#[derive(Debug, Default)]
struct Signal {
    hinted: AtomicBool,
    waker: AtomicWaker,
}

impl Listeners {
    fn subscribe(&mut self) -> Listener {
        self.0.retain(|signal| signal.strong_count() > 0);
        let signal = Arc::default();
        self.0.push(Arc::downgrade(&signal));
        Listener(signal)
    }

    /// Hints everyone. Many hints that nobody has taken yet are one.
    pub(crate) fn hint(&self) {
        for signal in self.0.iter().filter_map(Weak::upgrade) {
            if !signal.hinted.swap(true, Ordering::AcqRel) {
                signal.waker.wake();
            }
        }
    }
}

impl Wakeup for MemoryStorage {
    fn subscribe(&self) -> Box<dyn Hints> {
        Box::new(self.lock().listeners.subscribe())
    }
}

struct Listener(Arc<Signal>);

impl Hints for Listener {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::poll_fn(|context| {
            self.0.waker.register(context.waker());
            if self.0.hinted.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}
