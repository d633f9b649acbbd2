//! The testkit's simulator, seed by seed.

#[path = "../../../tests/all/simulate/memory.rs"]
mod memory;

use pillarbox_testkit::choices::Choices;
use pillarbox_testkit::simulate::Simulation;

/// What happened in the simulation of `seed`, as a number.
pub fn hash(seed: u64) -> u64 {
    Simulation::default().run(&memory::Memory, Choices::new(seed)).hash()
}
