//! Draining: claim nothing more, finish what is being sent, give the rest back uncharged.

use super::{Machine, Observation};
use crate::{Error, Moment, Verdict};
use std::time::Duration;

/// Where the relay is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// What is being sent goes on until `cut_at`; reporting goes on until `ends_at`.
    Draining {
        cut_at: Moment,
        ends_at: Moment,
        cut: bool,
    },
    Finished,
}

/// Reporting gets at least this long after the grace period, since one round trip to the store is always worth its time.
const REPORTING_AT_LEAST: Duration = Duration::from_secs(1);

impl Machine {
    /// Begins to drain. A second call changes nothing.
    pub(super) fn stop(&mut self, now: Moment) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.observer.observe(&Observation::Stopping { held: self.held.messages() });
        let grace = self.config.shutdown_grace;
        let cut_at = now.after(grace);
        self.phase =
            Phase::Draining { cut_at, ends_at: cut_at.after(grace.max(REPORTING_AT_LEAST)), cut: false };
        // A store that was left alone has one more chance at once.
        self.store.until = self.store.until.min(now);
        for place in 0..self.destinations.len() {
            while let Some(at) = self.destinations[place].ready.pop_front() {
                self.give_back(at);
            }
        }
        self.give_unrenewed_back();
    }

    /// Stops for good because of `error`.
    pub(super) fn fail(&mut self, now: Moment, error: Error) {
        self.failure.get_or_insert(error);
        self.stop(now);
    }

    pub(super) fn phase_due(&self) -> Option<Moment> {
        match self.phase {
            Phase::Draining { cut_at, cut: false, .. } => Some(cut_at),
            Phase::Draining { ends_at, .. } => Some(ends_at),
            Phase::Running | Phase::Finished => None,
        }
    }

    pub(super) fn check_phase(&mut self, now: Moment) {
        let Phase::Draining { cut_at, ends_at, cut } = self.phase else { return };
        if !cut && now >= cut_at {
            self.phase = Phase::Draining { cut_at, ends_at, cut: true };
            self.cut_all_off(now);
            for place in 0..self.destinations.len() {
                for (at, _) in std::mem::take(&mut self.destinations[place].doubtful) {
                    self.held.decide(at, Verdict::Release { after: Duration::ZERO });
                }
            }
        }
        // What is being settled is still held.
        let idle = self.held.messages() == 0 && !self.has_open_claims();
        if idle || now >= ends_at {
            self.phase = Phase::Finished;
        }
    }
}
