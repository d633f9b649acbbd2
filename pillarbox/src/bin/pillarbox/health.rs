use pillarbox::{Observation, Observer};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a relay last heard of its two sides. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) is_store_down: bool,
    pub(crate) paused: BTreeSet<u16>,
    pub(crate) is_stopping: bool,
}

impl State {
    /// Whether both sides answer and work is taken on.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_store_down && self.paused.is_empty() && !self.is_stopping
    }
}

impl Health {
    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    /// Every change is one assignment, so a poisoned state is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Health {
    fn observe(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::StoreFailed { .. } => self.lock().is_store_down = true,
            Observation::StoreRecovered => self.lock().is_store_down = false,
            Observation::Paused { destination, .. } => {
                self.lock().paused.insert(destination.0);
            }
            Observation::Resumed { destination } => {
                self.lock().paused.remove(&destination.0);
            }
            Observation::Stopping { .. } => self.lock().is_stopping = true,
            _ => {}
        }
    }
}
