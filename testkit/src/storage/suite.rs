use super::{Abilities, Ability, OutboxSettings, StorageHarness, TestStore, Violation, world::World};
use crate::conclusion::{Allowed, conclude, list_allowed};
use pillarbox_core::Storage as _;
use std::cell::RefCell;
use std::fmt;

/// One case of the suite: what the macro makes a test of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case {
    /// Its name, also the test's.
    pub name: &'static str,
    /// What it needs beyond the contract of [`Storage`](pillarbox_core::Storage).
    pub needs: &'static [Ability],
}

/// A case on its way: the harness, and a record of what was done.
pub struct Trial<H> {
    case: Case,
    harness: H,
    steps: RefCell<Vec<String>>,
    allowed: Allowed,
}

impl<H: StorageHarness> Trial<H> {
    #[doc(hidden)]
    pub const fn new(name: &'static str, needs: &'static [Ability], harness: H) -> Self {
        Self { case: Case { name, needs }, harness, steps: RefCell::new(Vec::new()), allowed: &[] }
    }

    /// Names cases that are known to fail, each with the reason.
    #[doc(hidden)]
    #[must_use]
    pub fn allow_failing(mut self, allowed: &'static [(&'static str, &'static str)]) -> Self {
        self.allowed = allowed;
        self
    }

    /// Whether the storage declares what this case needs. Nothing else makes a case not apply.
    #[doc(hidden)]
    pub fn applies(&self) -> bool {
        let missing = self.harness.abilities().missing(self.case.needs);
        if !missing.is_empty() {
            println!("{} does not apply: the storage declares no {missing:?}", self.case.name);
        }
        missing.is_empty()
    }

    /// Ends the test.
    ///
    /// # Panics
    /// With the rule that was broken, what was expected and what was seen, and the last steps. Also if a case holds that was
    /// allowed to fail.
    #[doc(hidden)]
    pub fn report(&self, result: Result<(), Violation>) {
        conclude(self.case.name, self.allowed, result, &self.steps.borrow());
    }

    /// What was done so far, in words. Forgets it.
    #[cfg(feature = "proptest")]
    pub(crate) fn take_steps(&self) -> Vec<String> {
        self.steps.take()
    }

    /// A fresh outbox with a first handle and a producer.
    pub(super) async fn world(&self, settings: &OutboxSettings) -> Result<World<'_, H::Store>, Violation> {
        let store = self.harness.create(settings).await?;
        World::open(store, &self.steps, *settings).await
    }

    /// Compares what is declared with what the storage offers, and lists what does not apply.
    ///
    /// # Errors
    /// A difference, or what stopped the harness.
    #[doc(hidden)]
    pub async fn declarations(&self) -> Result<(), Violation> {
        let abilities = self.harness.abilities();
        let store = self.harness.create(&OutboxSettings::default()).await?;
        let storage = store.connect().await?;
        let offered =
            Abilities { admin: storage.admin().is_some(), wakeup: storage.wakeup().is_some(), ..abilities };
        if offered != abilities {
            let difference = format!("declared {abilities:?}, but the storage offers {offered:?}");
            return Err(Violation::Harness(difference.into()));
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
