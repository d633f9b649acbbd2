//! The property test bites, and what it finds is short.

use crate::storage::{Fault, Mutant};
use futures_executor::block_on;
use pillarbox_testkit::storage::Trial;
use std::panic::catch_unwind;

pillarbox_testkit::property_suite!(
    #[test]
    block_on = block_on,
    harness = Mutant(Fault::None)
);

fn complaint(fault: Fault) -> String {
    let run = move || {
        pillarbox_testkit::property::sequences_agree_with_the_model(|sequence| {
            block_on(sequence.run(&Trial::new("sequences_agree_with_the_model", &[], Mutant(fault))))
        });
    };
    let panic = catch_unwind(run).expect_err("not found");
    *panic.downcast::<String>().expect("a panic with a text")
}

/// How many commands a failure was shrunk to.
fn commands(text: &str) -> usize {
    let (_, rest) = text.split_once("shrunk to ").expect(text);
    rest.split(' ').next().and_then(|count| count.parse().ok()).expect(text)
}

#[test]
fn every_broken_store_is_found_and_shrunk_to_a_few_commands() {
    for (fault, at_most) in [
        (Fault::HandsOutTwice, 4),
        (Fault::HandsOutSuspects, 8),
        (Fault::ForgetsAttempts, 6),
        (Fault::ChargesReleases, 6),
        (Fault::LosesReleased, 6),
        (Fault::IgnoresDelays, 6),
        (Fault::AppliesNothing, 4),
        (Fault::SaysApplied, 8),
        (Fault::TurnsRunsAround, 4),
        (Fault::SettlesEverything, 6),
        (Fault::LosesTheLast, 2),
    ] {
        let text = complaint(fault);
        let commands = commands(&text);
        println!("{fault:?}: {commands} commands");
        assert!(commands <= at_most, "{fault:?} was shrunk to {commands} commands only:\n{text}");
    }
}
