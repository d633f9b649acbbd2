//! The deterministic simulator: production relays on a storage in virtual time, with everything that goes wrong decided by
//! a seed.
//!
//! A run has two phases. First chaos: calls fail before and after their effect, land late or twice, hang; relays crash,
//! stand still for longer than a lease and come back, lose sight of the store or the broker; clocks jump; messages kill
//! their relays. Then everything works again, and everything must arrive. [`check`](crate::check) judges the history.
//!
//! **Architecture invariant:** one thread, no runtime, no system clock, no randomness but the seed's. It runs on
//! `wasm32-unknown-unknown`, and the same seed gives the same history everywhere.

mod broker;
mod kernel;
mod relay_side;
mod shrink;
mod subject;
mod sweep;
mod workload;
mod world;

pub use shrink::Shrunk;
pub use subject::{Look, Setup, Subject};
pub use sweep::{Failure, Sweep};

use crate::check::{Checked, Rules, check};
use crate::choices::Choices;
use crate::fault::Rates;
use crate::history::History;
use std::time::Duration;

/// The size of a run, and what may go wrong in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Simulation {
    /// How many relays. Default 3: a holder, a thief, and one that looks on.
    pub relays: u16,
    /// How many messages. Default 24.
    pub messages: u32,
    /// How many ordering keys, at most 16. Default 4, so that keys are contended; a third of the messages has none.
    pub keys: u16,
    /// The length of a lease. Default 400 ms of virtual time.
    pub lease: Duration,
    /// How long things go wrong. Default 1.5 s: a few leases.
    pub chaos: Duration,
    /// How long after that everything has arrived at the latest. Default 60 s.
    pub heal_within: Duration,
    /// How often each fault strikes. Default: each kind 15 times in a thousand calls.
    pub rates: Rates,
    /// Whether there are crashes, stops, partitions, jumps of clocks, slowness and an operator. Default yes.
    pub faults: bool,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            relays: 3,
            messages: 24,
            keys: 4,
            lease: Duration::from_millis(400),
            chaos: Duration::from_millis(1_500),
            heal_within: Duration::from_secs(60),
            rates: Rates::all(15),
            faults: true,
        }
    }
}

impl Simulation {
    /// Runs `subject` once, as `choices` decide.
    pub fn run(&self, subject: &impl Subject, choices: Choices) -> History {
        world::World::new(subject, self, choices).run()
    }

    /// Runs `subject` once, and holds the history against `rules`.
    pub fn judge(&self, subject: &impl Subject, choices: Choices, rules: Rules) -> (History, Checked) {
        let history = self.run(subject, choices);
        let checked = check(&history, rules);
        (history, checked)
    }
}
