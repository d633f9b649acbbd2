use super::{Shrunk, Simulation, Subject};
use crate::check::{Rules, Situations, Totals, Violation};
use crate::choices::Choices;
use crate::history::History;
use std::fmt;

/// Many seeds, one after the other.
#[derive(Debug)]
pub struct Sweep<'a, U> {
    simulation: &'a Simulation,
    subject: &'a U,
    rules: Rules,
    /// How many seeds were run.
    pub seeds: u64,
    /// What became of all their messages.
    pub totals: Totals,
    /// What all of them have shown.
    pub situations: Situations,
}

impl<'a, U: Subject> Sweep<'a, U> {
    /// A sweep over `subject`, judged by `rules`.
    pub fn new(simulation: &'a Simulation, subject: &'a U, rules: Rules) -> Self {
        let (totals, situations) = (Totals::default(), Situations::default());
        Self { simulation, subject, rules, seeds: 0, totals, situations }
    }

    /// Runs one seed.
    ///
    /// # Errors
    /// The seed breaks a rule.
    pub fn seed(&mut self, seed: u64) -> Result<(), Box<Failure>> {
        let (history, checked) = self.simulation.judge(self.subject, Choices::new(seed), self.rules);
        self.seeds += 1;
        self.totals.add(&checked.totals);
        self.situations.add(&checked.situations);
        let mut violations = checked.violations;
        if violations.is_empty() {
            return Ok(());
        }
        let violation = violations.swap_remove(0);
        Err(Box::new(Failure { seed, violation, totals: checked.totals, history }))
    }

    /// Runs seeds until one breaks a rule.
    ///
    /// # Errors
    /// The first seed that breaks a rule.
    pub fn seeds(&mut self, seeds: impl IntoIterator<Item = u64>) -> Result<(), Box<Failure>> {
        seeds.into_iter().try_for_each(|seed| self.seed(seed))
    }
}

/// A seed that breaks a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The first rule that it breaks.
    pub violation: Violation,
    /// What became of its messages.
    pub totals: Totals,
    /// What happened.
    pub history: History,
}

impl Failure {
    /// The same violation with as few choices as about `runs` more runs can find.
    pub fn shrink<U: Subject>(
        &self,
        simulation: &Simulation,
        subject: &U,
        rules: Rules,
        runs: u32,
    ) -> Shrunk {
        super::shrink::shrink(self, simulation, subject, rules, runs)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "seed {}: {}", self.seed, self.violation)?;
        writeln!(formatter, "{}", self.totals)
    }
}
