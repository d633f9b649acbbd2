//! Delta debugging over choices (Zeller, Hildebrandt 2002): ever more of them become the boring one, as long as the same rule
//! is broken.

use super::{Failure, Simulation, Subject};
use crate::check::{Rules, Violation};
use crate::choices::{ChoiceKey, Choices, Keep};
use crate::history::History;
use std::fmt;

/// A failure with few choices.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The seed.
    pub seed: u64,
    /// The choices that are kept; every other one is the boring one.
    pub keep: Keep,
    /// How many choices the seed made that were not boring.
    pub before: usize,
    /// How many of them are kept.
    pub after: usize,
    /// How many runs it took.
    pub runs: u32,
    /// The rule that is still broken.
    pub violation: Violation,
    /// What happened, up to the end.
    pub history: History,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, before, after, runs, violation, .. } = self;
        writeln!(
            formatter,
            "seed {seed}, shrunk from {before} choices to {after} in {runs} runs: {violation}"
        )?;
        writeln!(formatter, "      t/ms  who      what")?;
        for (place, record) in self.history.records.iter().enumerate() {
            let mark = if place == violation.record { "   <-- here" } else { "" };
            writeln!(formatter, "{}{mark}", self.history.line(record))?;
        }
        if violation.record >= self.history.records.len() {
            writeln!(formatter, "the end: {violation}   <-- here")?;
        }
        Ok(())
    }
}

pub(super) fn shrink<U: Subject>(
    failure: &Failure,
    simulation: &Simulation,
    subject: &U,
    rules: Rules,
    runs: u32,
) -> Shrunk {
    let choices = Choices::new(failure.seed).noting();
    // Draws are made in the same order whatever happens, so this is the failure again, with its choices.
    simulation.run(subject, choices.clone());
    let mut shrinker = Shrinker {
        seed: failure.seed,
        simulation,
        subject,
        rules,
        wanted: failure.violation.clone(),
        runs_left: runs,
        runs: 1,
        found: None,
    };
    let mut kept = choices.made();
    let before = kept.len();
    kept.sort_unstable();
    kept.dedup();
    shrinker.minimise(&mut kept);
    let keep: Keep = if shrinker.found.is_some() { kept.iter().copied().collect() } else { Keep::Everything };
    let (violation, history) =
        shrinker.found.unwrap_or_else(|| (failure.violation.clone(), failure.history.clone()));
    Shrunk { seed: failure.seed, keep, before, after: kept.len(), runs: shrinker.runs, violation, history }
}

struct Shrinker<'a, U> {
    seed: u64,
    simulation: &'a Simulation,
    subject: &'a U,
    rules: Rules,
    wanted: Violation,
    runs_left: u32,
    runs: u32,
    found: Option<(Violation, History)>,
}

impl<U: Subject> Shrinker<'_, U> {
    fn minimise(&mut self, kept: &mut Vec<ChoiceKey>) {
        let mut parts = 2;
        while !kept.is_empty() && self.runs_left > 0 {
            let size = kept.len().div_ceil(parts);
            let mut start = 0;
            let mut shrank = false;
            while start < kept.len() && self.runs_left > 0 {
                let end = (start + size).min(kept.len());
                let without: Vec<ChoiceKey> = kept[..start].iter().chain(&kept[end..]).copied().collect();
                if self.fails(&without) {
                    *kept = without;
                    shrank = true;
                } else {
                    start = end;
                }
            }
            if shrank {
                parts = parts.saturating_sub(1).max(2);
            } else if size <= 1 {
                return;
            } else {
                parts = (parts * 2).min(kept.len());
            }
        }
    }

    /// Whether the same rule is broken with these choices alone.
    fn fails(&mut self, kept: &[ChoiceKey]) -> bool {
        self.runs_left -= 1;
        self.runs += 1;
        let choices = Choices::keeping(self.seed, kept.iter().copied().collect());
        let (history, checked) = self.simulation.judge(self.subject, choices, self.rules);
        let same = checked.violations.into_iter().find(|violation| violation.rule == self.wanted.rule);
        match same {
            Some(violation) => {
                self.found = Some((violation, history));
                true
            }
            None => false,
        }
    }
}
