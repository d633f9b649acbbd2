//! What the relay reports.

use pillarbox_core::{Observation, Observer};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Watch {
    settled: AtomicU32,
    pauses: AtomicU32,
    /// Publishes that failed or were cut off, in part or as a whole.
    interrupted: AtomicU32,
    /// Those of them that had confirmed a part.
    in_part: AtomicU32,
    /// Why attempts were charged, and messages buried or suspected.
    charges: Mutex<Vec<String>>,
}

impl Watch {
    pub(super) fn settled(&self) -> u32 {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn pauses(&self) -> u32 {
        self.pauses.load(Ordering::Acquire)
    }

    pub(super) fn interrupted(&self) -> u32 {
        self.interrupted.load(Ordering::Acquire)
    }

    pub(super) fn in_part(&self) -> u32 {
        self.in_part.load(Ordering::Acquire)
    }

    pub(super) fn charges(&self) -> Vec<String> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn charge(&self, why: String) {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

impl Observer for Watch {
    fn observe(&self, observation: &Observation<'_>) {
        let add = |counter: &AtomicU32, count| {
            counter.fetch_add(count, Ordering::Release);
        };
        match *observation {
            Observation::Settled { published, .. } => add(&self.settled, published),
            Observation::Paused { .. } => add(&self.pauses, 1),
            Observation::Published { failed: 0, .. } => {}
            Observation::Published { confirmed, .. } => {
                add(&self.interrupted, 1);
                add(&self.in_part, u32::from(confirmed > 0));
            }
            Observation::CutOff { .. } => add(&self.interrupted, 1),
            Observation::Retried { reason, .. } => self.charge(format!("retried: {reason}")),
            Observation::Buried { reason, .. } => self.charge(format!("buried: {reason}")),
            Observation::Claimed { buried, suspects, .. } if buried > 0 || suspects > 0 => {
                self.charge(format!("a claim buried {buried}, and {suspects} were suspects"));
            }
            _ => {}
        }
    }
}
