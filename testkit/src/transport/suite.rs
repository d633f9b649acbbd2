use super::violation::{DECLARED, ensure};
use super::world::World;
use super::{Abilities, Ability, TransportHarness, Violation};
use crate::conclusion::{Allowed, conclude, list_allowed};
use pillarbox_core::{Limits, Transport as _};
use std::cell::{Cell, RefCell};
use std::fmt;

/// One case of the suite: what the macro makes a test of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case {
    /// Its name, also the test's.
    pub name: &'static str,
    /// What it needs beyond the contract of [`Transport`](pillarbox_core::Transport).
    pub needs: &'static [Ability],
}

/// A case on its way: the harness, and a record of what was done.
pub struct Trial<H> {
    case: Case,
    harness: H,
    steps: RefCell<Vec<String>>,
    allowed: Allowed,
    /// How many messages were made: ids are not repeated within a case, since what arrived once stays received.
    made: Cell<u32>,
}

impl<H: TransportHarness> Trial<H> {
    #[doc(hidden)]
    pub const fn new(name: &'static str, needs: &'static [Ability], harness: H) -> Self {
        Self {
            case: Case { name, needs },
            harness,
            steps: RefCell::new(Vec::new()),
            allowed: &[],
            made: Cell::new(0),
        }
    }

    /// Names cases that are known to fail, each with the reason.
    #[doc(hidden)]
    #[must_use]
    pub fn allow_failing(mut self, allowed: &'static [(&'static str, &'static str)]) -> Self {
        self.allowed = allowed;
        self
    }

    /// Whether the transport declares what this case needs. Nothing else makes a case not apply.
    #[doc(hidden)]
    pub fn applies(&self) -> bool {
        let missing = self.harness.abilities().missing(self.case.needs);
        if !missing.is_empty() {
            println!("{} does not apply: the transport declares no {missing:?}", self.case.name);
        }
        missing.is_empty()
    }

    /// Ends the test.
    ///
    /// # Panics
    /// With what the contract demands, what was expected and what was seen, and the last steps. Also if a case holds that was
    /// allowed to fail.
    #[doc(hidden)]
    pub fn report(&self, result: Result<(), Violation>) {
        conclude(self.case.name, self.allowed, result, &self.steps.borrow());
    }

    /// A first handle.
    pub(super) async fn world(&self) -> Result<World<'_, H>, Violation> {
        World::open(&self.harness, &self.steps, &self.made).await
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.harness.abilities()
    }

    /// Compares what is declared with what the transport guarantees, and lists what does not apply.
    ///
    /// # Errors
    /// A difference, or what stopped the harness.
    #[doc(hidden)]
    pub async fn declarations(&self) -> Result<(), Violation> {
        let abilities = self.abilities();
        let transport = self.harness.connect().await?;
        for destination in transport.destinations() {
            let guarantees = transport.guarantees(destination);
            ensure!(
                guarantees.prefix_per_key == abilities.prefix_per_key,
                DECLARED,
                format!("`prefix_per_key: {}`", abilities.prefix_per_key),
                "{guarantees:?}"
            );
            ensure!(
                !abilities.oversize || guarantees.max_payload < Limits::HIGHEST_PAYLOAD,
                DECLARED,
                format!("a limit of payloads below {} bytes", Limits::HIGHEST_PAYLOAD),
                "{guarantees:?}"
            );
        }
        list_allowed(self.allowed, |name| super::CASES.iter().any(|case| case.name == name));
        for case in super::CASES {
            let missing = abilities.missing(case.needs);
            if !missing.is_empty() {
                println!("{} does not apply: needs {missing:?}", case.name);
            }
        }
        Ok(())
    }
}

impl<H> fmt::Debug for Trial<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Trial").field("case", &self.case).finish_non_exhaustive()
    }
}
