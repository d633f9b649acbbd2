//! The simulator on the memory storage, and whether it finds what is broken.

mod memory;
mod mutants;
mod records;

use memory::Memory;
use mutants::Mutant;
use pillarbox_testkit::check::{Rule, Rules};
use pillarbox_testkit::choices::{Choices, Keep};
use pillarbox_testkit::simulate::{Failure, Simulation, Sweep};
use records::Lists;

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

/// Its calls take several steps, and others get through between them.
#[test]
fn a_storage_of_records_keeps_every_promise() {
    let simulation = Simulation::default();
    let mut sweep = Sweep::new(&simulation, &Lists, Rules::all());
    if let Err(failure) = sweep.seeds(0..2_000) {
        let shrunk = failure.shrink(&simulation, &Lists, Rules::all(), 2_000);
        panic!("{failure}\n{shrunk}");
    }
    assert_eq!((sweep.totals.lost, sweep.totals.unexpected), (0, 0));
    assert!(sweep.situations.fenced > 0 && sweep.situations.struck_out > 0, "{}", sweep.situations);
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

/// The first seed below the bound at which these rules find a mutant, and what they find.
fn found(mutant: Mutant, rules: Rules, bound: u64) -> Option<Box<Failure>> {
    let simulation = Simulation::default();
    Sweep::new(&simulation, &mutant, rules).seeds(0..bound).err()
}

#[test]
fn every_mutant_is_found() {
    let missed: Vec<Mutant> =
        Mutant::ALL.into_iter().filter(|mutant| found(*mutant, Rules::all(), BOUND).is_none()).collect();
    assert_eq!(missed, [], "within {BOUND} seeds");
}

/// For each rule a mutant that nothing else finds so early.
const WITNESSES: &[(Rule, Mutant)] = &[
    (Rule::Overlap, Mutant::ShortLeases),
    (Rule::Fence, Mutant::SameFence),
    (Rule::Stale, Mutant::SaysApplied),
    (Rule::FalseFence, Mutant::FencesRenewals),
    (Rule::FalseRepeat, Mutant::SaysAlreadyApplied),
    (Rule::Repetition, Mutant::ForgetsNonces),
    (Rule::Limit, Mutant::OverfillsLimits),
    (Rule::Terminal, Mutant::Resurrects),
    (Rule::Order, Mutant::TurnsBatchesAround),
    (Rule::Early, Mutant::IgnoresDelays),
    (Rule::Lease, Mutant::HalfLeases),
    (Rule::Attempts, Mutant::MiscountsAttempts),
    (Rule::Strikes, Mutant::HidesStrikes),
    (Rule::Suspect, Mutant::HandsOutSuspects),
    (Rule::Burial, Mutant::BuriesRetries),
    (Rule::Lost, Mutant::DropsRetries),
    (Rule::Stuck, Mutant::NeverReclaims),
    (Rule::Unexpected, Mutant::CommitsRollbacks),
    (Rule::Changed, Mutant::CutsPayloads),
    (Rule::Duplicate, Mutant::SendsTwice),
    (Rule::Running, Mutant::Panics),
    (Rule::Spinning, Mutant::NeverStopsHinting),
];

#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        assert!(WITNESSES.iter().any(|(other, _)| other == rule), "{rule} has no mutant of its own");
    }
    for (rule, mutant) in WITNESSES {
        let failure =
            found(*mutant, Rules::only(*rule), BOUND).unwrap_or_else(|| panic!("{rule}: {mutant:?}"));
        assert_eq!(failure.violation.rule, *rule);
        let without = found(*mutant, Rules::all().without(*rule), failure.seed + 1);
        assert!(without.is_none(), "{mutant:?} is found without {rule} too: {}", without.unwrap());
    }
}

#[test]
fn a_failure_is_shrunk_and_replayed() {
    let simulation = Simulation::default();
    for mutant in [Mutant::SaysApplied, Mutant::IgnoresKeys, Mutant::DropsRetries] {
        let failure = found(mutant, Rules::all(), BOUND).unwrap();
        let shrunk = failure.shrink(&simulation, &mutant, Rules::all(), 1_500);
        assert!(shrunk.after * 5 < shrunk.before, "{mutant:?}: {} of {}", shrunk.after, shrunk.before);
        assert_eq!(shrunk.violation.rule, failure.violation.rule);
        // What is printed is enough to see it again.
        let keep: Keep = shrunk.keep.to_string().parse().unwrap();
        let again = Choices::keeping(shrunk.seed, keep);
        let (history, checked) = simulation.judge(&mutant, again, Rules::all());
        assert_eq!(history.hash(), shrunk.history.hash());
        assert!(checked.violations.contains(&shrunk.violation));
        assert!(shrunk.to_string().contains("<-- here"), "{shrunk}");
    }
}
