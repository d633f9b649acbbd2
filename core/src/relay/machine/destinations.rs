//! The breaker of each destination.

use super::held::EntryRef;
use super::{Command, Machine, requested_pause};
use crate::{Destination, Error, ErrorKind, Moment, Observation, TransportGuarantees, Verdict};
use std::collections::VecDeque;
use std::time::Duration;

/// One destination as the relay sees it.
#[derive(Debug)]
pub(super) struct DestinationState {
    pub(super) id: Destination,
    pub(super) guarantees: TransportGuarantees,
    /// Messages that wait to be published.
    pub(super) ready: VecDeque<EntryRef>,
    pub(super) publishes_in_flight: u32,
    /// How many messages are still to be sent one at a time, since their like was in flight when a connection was lost.
    pub(super) one_at_a_time: u32,
    /// Whether it has ever confirmed a message.
    pub(super) succeeded: bool,
    /// Failed messages whose fault is not clear: the next probe tells.
    pub(super) doubtful: Vec<(EntryRef, Error)>,
    health: Health,
    /// Failures in a row without a confirmed message in between.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Flowing,
    Paused { since: Moment, until: Moment },
    Probing { since: Moment },
}

impl DestinationState {
    pub(super) fn flows(&self) -> bool {
        self.health == Health::Flowing
    }

    /// Whether another publish may start.
    pub(super) fn may_publish(&self, at_most: u32) -> bool {
        let at_most = if self.one_at_a_time > 0 { 1 } else { at_most };
        self.flows() && self.publishes_in_flight < at_most && !self.ready.is_empty()
    }

    /// The broker has confirmed `count` messages.
    pub(super) fn confirmed(&mut self, count: u32) {
        self.succeeded = true;
        self.failures = 0;
        self.one_at_a_time = self.one_at_a_time.saturating_sub(count);
    }

    fn probe_due(&self) -> Option<Moment> {
        match self.health {
            Health::Paused { until, .. } => Some(until),
            Health::Flowing | Health::Probing { .. } => None,
        }
    }
}

impl Machine {
    /// Makes a destination known that is not yet.
    pub(super) fn add_destination(
        &mut self,
        id: Destination,
        guarantees: impl FnOnce() -> TransportGuarantees,
    ) {
        if let Err(place) = self.destinations.binary_search_by_key(&id, |state| state.id) {
            let state = DestinationState {
                id,
                guarantees: guarantees(),
                ready: VecDeque::new(),
                publishes_in_flight: 0,
                one_at_a_time: 0,
                succeeded: false,
                doubtful: Vec::new(),
                health: Health::Flowing,
                failures: 0,
            };
            self.destinations.insert(place, state);
        }
    }

    /// The state of a destination that a held message names: it was added when the message came.
    pub(super) fn destination(&mut self, id: Destination) -> &mut DestinationState {
        let place = self.destinations.partition_point(|state| state.id < id);
        &mut self.destinations[place]
    }

    pub(super) fn all_paused(&self) -> bool {
        !self.destinations.is_empty() && self.destinations.iter().all(|state| !state.flows())
    }

    /// Leaves a destination alone because of `error`, for a publish that was sent at `sent`. What waits for it is set aside.
    pub(super) fn pause(&mut self, now: Moment, id: Destination, sent: Moment, error: &Error) {
        let random = (self.random)();
        let backoff = self.config.pause;
        let state = self.destination(id);
        let since = match state.health {
            Health::Flowing => now,
            Health::Paused { since, .. } | Health::Probing { since } => since,
        };
        // Publishes that were on their way when the pause began tell nothing new.
        let news = state.flows() || sent >= since;
        if !news {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let pause = backoff.delay(state.failures, random).max(requested_pause(error));
        state.health = Health::Paused { since, until: now.after(pause) };
        self.observer.observe(&Observation::Paused { destination: id, pause, error: Some(error) });
        self.set_aside_ready(now, id);
    }

    /// Stops sending until a probe tells whether the destination or the message is at fault.
    pub(super) fn doubt(&mut self, now: Moment, at: EntryRef, id: Destination, error: Error) {
        self.release_rest_of_key(at);
        let state = self.destination(id);
        state.doubtful.push((at, error));
        if state.flows() {
            state.health = Health::Paused { since: now, until: now };
        }
    }

    /// Gives a message of a paused destination back, uncharged, until after its next probe.
    pub(super) fn set_aside(&mut self, now: Moment, at: EntryRef, id: Destination) {
        let first = self.config.pause.first();
        let random = (self.random)();
        let state = self.destination(id);
        let until = match state.health {
            Health::Paused { until, .. } => until,
            Health::Flowing | Health::Probing { .. } => now,
        };
        // Spread, so that not everything comes back at the moment of the probe.
        let spread = until.since(now).max(first);
        let jitter = scaled(spread, random);
        self.held.decide(at, Verdict::Release { after: until.since(now).max(first) + jitter });
        self.release_rest_of_key(at);
    }

    pub(super) fn set_aside_ready(&mut self, now: Moment, id: Destination) {
        while let Some(at) = self.destination(id).ready.pop_front() {
            self.set_aside(now, at, id);
        }
    }

    pub(super) fn probe_due(&self) -> Option<Moment> {
        self.destinations.iter().filter_map(DestinationState::probe_due).min()
    }

    pub(super) fn next_probe(&mut self, now: Moment) -> Option<Command> {
        let deadline = now.after(self.config.publish_at_most());
        let state =
            self.destinations.iter_mut().find(|state| state.probe_due().is_some_and(|due| due <= now))?;
        if let Health::Paused { since, .. } = state.health {
            state.health = Health::Probing { since };
        }
        Some(Command::Probe { destination: state.id, deadline })
    }

    pub(super) fn on_probed(&mut self, now: Moment, id: Destination, result: Result<(), Error>) {
        let doubtful = std::mem::take(&mut self.destination(id).doubtful);
        let away = |error: &Error| {
            use ErrorKind::{Indeterminate, Misconfigured, Unavailable, Unexpected};
            matches!(error.kind(), Unavailable | Misconfigured | Indeterminate | Unexpected)
        };
        match result {
            Err(error) if away(&error) => {
                for (at, _) in doubtful {
                    self.held.decide(at, Verdict::Release { after: self.config.pause.first() });
                }
                self.pause(now, id, now, &error);
                if error.kind() == ErrorKind::Misconfigured
                    && !self.destinations.iter().any(|state| state.succeeded)
                {
                    self.fail(now, error);
                }
            }
            // Any other error is an answer: the broker is there.
            Ok(()) | Err(_) => {
                let state = self.destination(id);
                state.health = Health::Flowing;
                state.one_at_a_time = state.one_at_a_time.max(1);
                self.observer.observe(&Observation::Resumed { destination: id });
                for (at, error) in doubtful {
                    self.charge(at, &error);
                }
                self.claim_now(now);
            }
        }
    }
}

/// A part of `duration`, drawn by `random`.
pub(super) fn scaled(duration: Duration, random: u64) -> Duration {
    let part = (duration.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_drawn_evenly_and_below_the_whole() {
        let second = Duration::from_secs(1);
        assert_eq!(scaled(second, 0), Duration::ZERO);
        assert_eq!(scaled(second, 1 << 63), second / 2);
        assert_eq!(scaled(second, u64::MAX), second - Duration::from_nanos(1));
    }
}
