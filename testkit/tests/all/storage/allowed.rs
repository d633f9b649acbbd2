//! What a case that fails says, and cases that are known to fail.

use super::broken::Fault;
use super::harness::Mutant;
use futures_executor::block_on;
use pillarbox_testkit::storage::{Trial, Violation, cases};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Every other case holds on this store, and the two that do not are named.
mod known {
    use super::*;

    pillarbox_testkit::storage_suite!(
        #[test]
        block_on = block_on,
        allow_failing = {
            renew_never_shortens => "comes with the next schema",
            stale_renew_is_fenced => "comes with the next schema",
        },
        harness = Mutant(Fault::ShortensRenewals)
    );
}

fn complaint(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("nothing was wrong with that");
    *panic.downcast::<String>().expect("a panic with a text")
}

fn allowing(case: &'static str, allowed: &'static [(&'static str, &'static str)]) -> Trial<Mutant> {
    Trial::new(case, &[], Mutant(Fault::None)).allow_failing(allowed)
}

#[test]
fn a_case_that_holds_again_fails_until_its_line_is_gone() {
    let trial = allowing("zero_limit", &[("zero_limit", "see the tracker")]);
    let text = complaint(|| trial.report(Ok(())));
    assert!(text.contains("`zero_limit` holds now") && text.contains("see the tracker"), "{text}");
}

#[test]
fn a_case_that_is_not_named_fails_as_ever() {
    let trial = allowing("zero_limit", &[("payload_roundtrip", "see the tracker")]);
    let text = complaint(|| trial.report(Err(Violation::Harness("no".into()))));
    assert!(text.contains("`zero_limit` is broken"), "{text}");
}

#[test]
fn a_name_that_is_no_case_is_told() {
    let trial = allowing("declares_what_it_can", &[("zero_limits", "see the tracker")]);
    let text = complaint(|| block_on(trial.declarations()).unwrap());
    assert!(text.contains("`zero_limits`, which is no case"), "{text}");
}

#[test]
fn a_case_that_fails_explains_itself() {
    let trial = Trial::new("stale_settle_is_fenced", &[], Mutant(Fault::SaysApplied));
    let result = block_on(cases::fencing::stale_settle_is_fenced(&trial));
    let text = complaint(|| trial.report(result));
    println!("{text}");
    for words in [
        "`stale_settle_is_fenced` is broken",
        "known as F3: a zombie completes or reschedules another's claim",
        "rule 3: only a current token changes anything",
        "expected: ",
        "seen:     ",
        "after these steps:",
        "enqueue m1",
        "the clock moves on by 601s",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}
