//! The simulator on the memory storage, and whether it finds what is broken.

mod memory;
mod mutants;

use memory::Memory;
use mutants::Mutant;
use pillarbox_testkit::check::{Rule, Rules};
use pillarbox_testkit::choices::{Choices, Keep};
use pillarbox_testkit::simulate::{Simulation, Sweep};
use std::collections::BTreeMap;

/// The seeds of the gate. What no rule has found there in other storages is found by more: the example runs any number.
const GATE: u64 = 20_000;
/// Within so many seeds every mutant is found.
const BOUND: u64 = 400;

#[test]
fn twenty_thousand_seeds_keep_every_promise() {
    let simulation = Simulation::default();
    let mut sweep = Sweep::new(&simulation, &Memory, Rules::all());
    if let Err(failure) = sweep.seeds(0..GATE) {
        let shrunk = failure.shrink(&simulation, &Memory, Rules::all(), 2_000);
        panic!("{failure}\n{shrunk}\nreplay with `--example simulate -- --first {} --trace`", failure.seed);
    }
    println!("{}\n{}", sweep.situations, sweep.totals);
    assert_eq!(sweep.situations.never(), Vec::<&str>::new(), "what never occurs is not tested");
    assert_eq!((sweep.totals.lost, sweep.totals.unexpected), (0, 0));
    assert!(sweep.totals.delivered * 100 > sweep.totals.attempted * 85, "{}", sweep.totals);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let simulation = Simulation::default();
    let hash = |seed| simulation.run(&Memory, Choices::new(seed)).hash();
    let first: Vec<u64> = (0..200).map(hash).collect();
    let second: Vec<u64> = (0..200).map(hash).collect();
    assert_eq!(first, second);
    let mut distinct = first;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 200, "different seeds are different histories");
}

#[test]
fn with_boring_choices_everything_arrives_once() {
    let simulation = Simulation::default();
    let nothing = Choices::keeping(1, [].into_iter().collect::<Keep>());
    let (_, checked) = simulation.judge(&Memory, nothing, Rules::all());
    assert_eq!(checked.violations, []);
    let totals = checked.totals;
    assert_eq!((totals.acknowledged, totals.delivered, totals.duplicated), (24, 24, 0), "{totals}");
}

/// The rules that find a mutant within the bound, each by the number of its seeds.
fn found(mutant: Mutant, rules: Rules, seeds: u64) -> BTreeMap<Rule, u64> {
    let simulation = Simulation::default();
    let mut found = BTreeMap::new();
    for seed in 0..seeds {
        let (_, checked) = simulation.judge(&mutant, Choices::new(seed), rules);
        let mut broken: Vec<Rule> = checked.violations.iter().map(|violation| violation.rule).collect();
        broken.sort_unstable();
        broken.dedup();
        for rule in broken {
            *found.entry(rule).or_default() += 1;
        }
    }
    found
}

#[test]
fn survey() {
    for mutant in Mutant::ALL {
        let begun = std::time::Instant::now();
        println!("{mutant:?}: {:?} {:?}", found(mutant, Rules::all(), 100), begun.elapsed());
    }
    let _ = BOUND;
}
