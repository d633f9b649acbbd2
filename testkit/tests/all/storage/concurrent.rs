//! Relays that work at the same time find what is broken, and say which rule it is.

use super::{Fault, Mutant};
use pillarbox_testkit::storage::{Trial, Violation, cases};

/// The number of the rule that is broken under either head policy.
fn broken_rule(fault: Fault) -> Option<u8> {
    let trial = || Trial::new("concurrent", &[], Mutant(fault));
    let (continued, blocked) = (trial(), trial());
    let result = futures_executor::block_on(async {
        cases::concurrent::concurrent_relays_keep_every_rule(&continued).await?;
        cases::concurrent::concurrent_relays_keep_every_rule_under_block(&blocked).await
    });
    match result {
        Ok(()) => None,
        Err(Violation::Broken { rule, .. }) => Some(rule.number),
        Err(other) => panic!("{fault:?}: {other}"),
    }
}

#[test]
fn a_storage_that_is_whole_passes() {
    assert_eq!(broken_rule(Fault::None), None);
}

#[test]
fn every_rule_is_judged() {
    let expected = [
        (Fault::HandsOutTwice, 1),
        (Fault::ChoosesThenTakes, 1),
        (Fault::IgnoresSchedules, 2),
        (Fault::SaysApplied, 3),
        (Fault::RenewsNothing, 1),
        (Fault::ForgetsAttempts, 4),
        (Fault::ChargesHandBacks, 4),
        (Fault::AppliesNothing, 3),
        (Fault::SettlesEverything, 9),
        (Fault::LosesTheLast, 5),
        (Fault::CommitsRollbacks, 0),
        (Fault::CommitsEarly, 0),
    ];
    let found = expected.map(|(fault, _)| (fault, broken_rule(fault)));
    assert_eq!(found, expected.map(|(fault, rule)| (fault, Some(rule))));
}
