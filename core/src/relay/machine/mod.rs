//! The relay as a machine without I/O, in the manner of quinn-proto: time and events go in, commands come out.
//!
//! Order of calls: [`handle`](Machine::handle) every event as it happens; then [`poll`](Machine::poll) until it answers
//! nothing, and start each command; then wait for an event, but not longer than [`poll_timeout`](Machine::poll_timeout). When
//! [`is_finished`](Machine::is_finished), stop. Every command that was started is answered by exactly one event.
//!
//! **Architecture invariant:** the machine spawns nothing, reads no clock, draws no randomness of its own and holds no I/O, so
//! that a crash is the drop of one value, and the simulator drives the code that production runs.

mod claiming;
mod destinations;
mod held;
mod leasing;
mod publishing;
mod settling;
mod stopping;
#[cfg(test)]
mod tests;

use super::{Observation, Observer, RelayConfig};
use crate::{
    Claim, Claimed, Destination, Error, ErrorKind, Message, Moment, Nonce, Outcomes, Renewed, Settled,
    Settlements, Token, Transport, TransportGuarantees,
};
use claiming::Claiming;
use destinations::DestinationState;
use held::Held;
use leasing::Leasing;
use publishing::Publishing;
use settling::Settling;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stopping::Phase;

/// What the machine wants done. Buffers that a command owns come back with its event.
#[derive(Debug)]
pub enum Command {
    /// Call [`Storage::claim`](crate::Storage::claim).
    Claim {
        /// What to ask for.
        claim: Claim,
        /// Give up waiting then, with `Unavailable`.
        deadline: Moment,
    },
    /// Call [`Transport::publish`].
    Publish {
        /// Names this publish.
        ticket: u32,
        /// Where all of the batch goes.
        destination: Destination,
        /// What to publish.
        batch: Vec<Message>,
        /// Where to write the outcomes; ready for the batch.
        outcomes: Outcomes,
    },
    /// Drop the future of this publish, and answer with the outcomes that it has written so far. Nothing to do if it has
    /// ended meanwhile.
    CutOff {
        /// Which publish.
        ticket: u32,
    },
    /// Call [`Transport::probe`].
    Probe {
        /// Which destination.
        destination: Destination,
        /// Give up waiting then, with `Unavailable`.
        deadline: Moment,
    },
    /// Call [`Storage::renew`](crate::Storage::renew).
    Renew {
        /// Names this renewal.
        ticket: u32,
        /// The runs.
        tokens: Vec<Token>,
        /// The new length of their leases.
        lease: Duration,
        /// Give up waiting then, with `Unavailable`.
        deadline: Moment,
    },
    /// Call [`Storage::settle`](crate::Storage::settle).
    Settle {
        /// Names this settle.
        ticket: u32,
        /// What to report.
        settlements: Settlements,
        /// Give up waiting then, with `Unavailable`.
        deadline: Moment,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The answer to a claim.
    Claimed {
        /// Of the claim.
        nonce: Nonce,
        /// The store's answer.
        result: Result<Claimed, Error>,
    },
    /// A publish ended or was cut off.
    Published {
        /// Of the publish.
        ticket: u32,
        /// Its buffer.
        batch: Vec<Message>,
        /// What is known of each message.
        outcomes: Outcomes,
    },
    /// The answer to a probe.
    Probed {
        /// Of the probe.
        destination: Destination,
        /// The transport's answer.
        result: Result<(), Error>,
    },
    /// The answer to a renewal.
    Renewed {
        /// Of the renewal.
        ticket: u32,
        /// Its buffer.
        tokens: Vec<Token>,
        /// The store's answer.
        result: Result<Vec<Renewed>, Error>,
    },
    /// The answer to a settle.
    Settled {
        /// Of the settle.
        ticket: u32,
        /// Its buffer.
        settlements: Settlements,
        /// The store's answer.
        result: Result<Vec<Settled>, Error>,
    },
    /// The store hinted that work may be due.
    Hint,
    /// Someone asked the relay to stop.
    Shutdown,
}

/// The relay's decisions. See the [module](self) for the order of calls.
pub struct Machine {
    config: RelayConfig,
    random: Box<dyn FnMut() -> u64 + Send>,
    observer: Arc<dyn Observer>,
    phase: Phase,
    store: StoreHealth,
    held: Held,
    destinations: Vec<DestinationState>,
    claiming: Claiming,
    publishing: Publishing,
    leasing: Leasing,
    settling: Settling,
    last_ticket: u32,
    failure: Option<Error>,
}

/// How the store has been answering.
#[derive(Debug, Default)]
struct StoreHealth {
    failures: u32,
    until: Moment,
    succeeded: bool,
}

impl Machine {
    /// A machine for these destinations, whose jitter and nonces are drawn from `random` (uniform over all values).
    ///
    /// # Errors
    /// `Misconfigured` if the settings do not hold.
    pub fn new(
        config: RelayConfig,
        destinations: &[(Destination, TransportGuarantees)],
        random: Box<dyn FnMut() -> u64 + Send>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        config.check()?;
        let mut machine = Self {
            config,
            random,
            observer,
            phase: Phase::Running,
            store: StoreHealth::default(),
            held: Held::default(),
            destinations: Vec::new(),
            claiming: Claiming::default(),
            publishing: Publishing::default(),
            leasing: Leasing::default(),
            settling: Settling::default(),
            last_ticket: 0,
            failure: None,
        };
        for (destination, guarantees) in destinations {
            machine.add_destination(*destination, || *guarantees);
        }
        Ok(machine)
    }

    /// Takes in what happened at `now`. `transport` is asked for destinations and guarantees only.
    pub fn handle(&mut self, now: Moment, event: Event, transport: &impl Transport) {
        match event {
            Event::Claimed { nonce, result } => self.on_claimed(now, nonce, result, transport),
            Event::Published { ticket, batch, outcomes } => self.on_published(now, ticket, batch, outcomes),
            Event::Probed { destination, result } => self.on_probed(now, destination, result),
            Event::Renewed { ticket, tokens, result } => self.on_renewed(now, ticket, tokens, result),
            Event::Settled { ticket, settlements, result } => {
                self.on_settled(now, ticket, settlements, result);
            }
            Event::Hint => self.on_hint(now),
            Event::Shutdown => self.stop(now),
        }
    }

    /// The next command to start at `now`, if there is one.
    pub fn poll(&mut self, now: Moment) -> Option<Command> {
        self.check_phase(now);
        // What frees room in the store comes first, then what keeps leases, then what is sent, and new work last.
        self.next_settle(now)
            .or_else(|| self.next_renewal(now))
            .or_else(|| self.next_cut_off(now))
            .or_else(|| self.next_publish(now))
            .or_else(|| self.next_probe(now))
            .or_else(|| self.next_claim(now))
            // What could not be sent any more was decided meanwhile.
            .or_else(|| self.next_settle(now))
    }

    /// When to poll again at the latest, if no event comes before; `None` is never.
    pub fn poll_timeout(&self) -> Option<Moment> {
        [
            self.phase_due(),
            self.settle_due(),
            self.renewal_due(),
            self.cut_off_due(),
            self.probe_due(),
            self.claim_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether everything is done: the relay was asked to stop, or failed for good, and holds nothing any more.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Why the relay stopped by itself, once it [is finished](Self::is_finished).
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// How many messages are claimed and not settled yet.
    pub fn held(&self) -> u32 {
        self.held.messages()
    }

    fn ticket(&mut self) -> u32 {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        self.last_ticket
    }

    /// How long a call of the store may take before it counts as lost: well within a lease, so that it can be repeated.
    fn store_deadline(&self, now: Moment) -> Moment {
        now.after((self.config.lease / 3).min(Duration::from_secs(10)))
    }

    fn store_answered(&mut self) {
        self.store.succeeded = true;
        if self.store.failures > 0 {
            self.store = StoreHealth { failures: 0, until: Moment::ORIGIN, succeeded: true };
            self.observer.observe(&Observation::StoreRecovered);
        }
    }

    fn store_failed(&mut self, now: Moment, error: Error) {
        // Calls that failed together count as one failure.
        if now >= self.store.until {
            self.store.failures = self.store.failures.saturating_add(1);
            // A relay that stops has little time left to report in.
            let running = matches!(self.phase, Phase::Running);
            let failures = if running { self.store.failures } else { 1 };
            let pause = self.config.pause.delay(failures, (self.random)());
            self.store.until = now.after(pause.max(requested_pause(&error)));
        }
        if error.kind() == ErrorKind::Misconfigured && !self.store.succeeded {
            self.fail(now, error);
            return;
        }
        let pause = self.store.until.since(now);
        self.observer.observe(&Observation::StoreFailed {
            failures: self.store.failures,
            pause,
            error: &error,
        });
    }
}

/// A pause that the other side asked for is kept up to this long: a wrong header may cost an hour, not the whole backlog.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(60 * 60);

fn requested_pause(error: &Error) -> Duration {
    error.requested_pause().unwrap_or_default().min(LONGEST_REQUESTED_PAUSE)
}

/// A store's answer, if it has one part for each of the `asked`.
fn answered<V>(
    result: Result<Vec<V>, Error>,
    asked: usize,
    operation: &'static str,
) -> Result<Vec<V>, Error> {
    let answers = result?;
    if answers.len() != asked {
        let given = answers.len();
        return Err(Error::new(ErrorKind::Unexpected, operation)
            .describe(format!("the store gave {given} answers to {asked} questions")));
    }
    Ok(answers)
}

impl fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Machine")
            .field("phase", &self.phase)
            .field("held", &self.held.messages())
            .field("store", &self.store)
            .field("destinations", &self.destinations)
            .finish_non_exhaustive()
    }
}
