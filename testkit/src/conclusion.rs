//! How a case of a suite ends, also one that is known to fail.

use crate::failures::KnownFailure;
use std::fmt::Display;

/// Cases that are known to fail, each with the reason.
pub(crate) type Allowed = &'static [(&'static str, &'static str)];

/// Ends the test of a case.
///
/// # Panics
/// If the case fails and may not, or holds although it is known to fail.
pub(crate) fn conclude(case: &str, allowed: Allowed, result: Result<(), impl Display>, steps: &[String]) {
    let known = allowed.iter().find(|(name, _)| *name == case);
    match (result, known) {
        (Ok(()), None) => {}
        (Ok(()), Some((_, why))) => panic!("`{case}` holds now: take it out of `allow_failing` ({why})"),
        (Err(violation), Some((_, why))) => {
            println!("`{case}` fails, as is known ({why}):\n{violation}");
        }
        (Err(violation), None) => {
            let shown = &steps[steps.len().saturating_sub(40)..];
            let known: String =
                KnownFailure::of_case(case).map(|failure| format!("  known as {failure}\n")).collect();
            panic!(
                "\n`{case}` is broken\n{known}{violation}\n  after these steps:\n    {}\n",
                shown.join("\n    ")
            );
        }
    }
}

/// Lists what is allowed to fail.
///
/// # Panics
/// If it names no case.
pub(crate) fn list_allowed(allowed: Allowed, is_case: impl Fn(&str) -> bool) {
    for (name, why) in allowed {
        assert!(is_case(name), "`allow_failing` names `{name}`, which is no case of this suite");
        println!("{name} is known to fail: {why}");
    }
}
