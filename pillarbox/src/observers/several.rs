use pillarbox_core::{Observation, Observer};
use std::fmt;
use std::sync::Arc;

/// Several observers in place of one; each hears everything, in the order in which they were added.
#[derive(Clone, Default)]
pub struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds `observer`.
    #[must_use]
    pub fn with(mut self, observer: impl Observer + 'static) -> Self {
        self.0.push(Arc::new(observer));
        self
    }
}

impl Observer for Observers {
    fn observe(&self, observation: &Observation<'_>) {
        for observer in &self.0 {
            observer.observe(observation);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Observers({})", self.0.len())
    }
}
