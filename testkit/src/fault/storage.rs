use super::{BREATH, Fault, FaultPlan, Injection, Operation, Surroundings, injected};
use pillarbox_core::{
    Admin, BoxFuture, Claim, Claimed, Error, Hints, Renewed, Settled, Settlements, Storage,
    StorageGuarantees, Token, Wakeup,
};
use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

/// A storage whose calls go wrong as a plan says. Looking and mending go through untouched.
#[derive(Clone)]
pub struct FaultyStorage<S> {
    inner: S,
    plan: Arc<dyn FaultPlan>,
    surroundings: Arc<dyn Surroundings>,
}

impl<S: Storage + Clone + 'static> FaultyStorage<S> {
    /// `inner`, with the faults of `plan`.
    pub fn new(inner: S, plan: impl FaultPlan + 'static, surroundings: impl Surroundings + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), surroundings: Arc::new(surroundings) }
    }

    /// Makes a call that may go wrong. `late` makes it once more, owning what it needs.
    async fn call<V, F>(
        &self,
        operation: Operation,
        effect: impl Fn() -> F + Send,
        late: impl FnOnce(S) -> BoxFuture<'static, ()> + Send,
    ) -> Result<V, Error>
    where
        V: Send,
        F: Future<Output = Result<V, Error>> + Send,
    {
        let Injection { request, fault, reply } = self.plan.draw(operation);
        self.wait(request).await;
        match fault {
            Fault::Refused(kind) => return Err(injected(kind, operation).not_applied()),
            Fault::FailBefore(kind) | Fault::Part(kind, _) => return Err(injected(kind, operation)),
            Fault::Late(kind, after) => {
                let (late, surroundings) = (late(self.inner.clone()), Arc::clone(&self.surroundings));
                self.surroundings.later(Box::pin(async move {
                    surroundings.sleep(after).await;
                    late.await;
                }));
                return Err(injected(kind, operation));
            }
            Fault::HangBefore => pending().await,
            Fault::PauseBefore(duration) => {
                self.surroundings.pause(duration);
                self.surroundings.sleep(BREATH).await;
            }
            Fault::None
            | Fault::FailAfter(_)
            | Fault::Duplicate
            | Fault::HangAfter
            | Fault::PauseAfter(_) => {}
        }
        let mut answer = effect().await;
        match fault {
            Fault::Duplicate => answer = effect().await,
            Fault::FailAfter(kind) => answer = Err(injected(kind, operation)),
            Fault::HangAfter => pending().await,
            Fault::PauseAfter(duration) => {
                self.surroundings.pause(duration);
                self.surroundings.sleep(BREATH).await;
            }
            _ => {}
        }
        self.wait(reply).await;
        answer
    }

    async fn wait(&self, duration: Duration) {
        if !duration.is_zero() {
            self.surroundings.sleep(duration).await;
        }
    }
}

impl<S: Storage + Clone + 'static> Storage for FaultyStorage<S> {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let late = move |inner: S| -> BoxFuture<'static, ()> {
            Box::pin(async move { drop(inner.claim(claim).await) })
        };
        self.call(Operation::Claim, || self.inner.claim(claim), late).await
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let late = |inner: S| -> BoxFuture<'static, ()> {
            let tokens = tokens.to_vec();
            Box::pin(async move { drop(inner.renew(&tokens, lease).await) })
        };
        self.call(Operation::Renew, || self.inner.renew(tokens, lease), late).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let late = |inner: S| -> BoxFuture<'static, ()> {
            let settlements = settlements.clone();
            Box::pin(async move { drop(inner.settle(&settlements).await) })
        };
        self.call(Operation::Settle, || self.inner.settle(settlements), late).await
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.inner.wakeup().map(|_| self as &dyn Wakeup)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }
}

impl<S: Storage + Clone + 'static> Wakeup for FaultyStorage<S> {
    fn subscribe(&self) -> Box<dyn Hints> {
        match self.inner.wakeup() {
            Some(wakeup) => Box::new(LossyHints { inner: wakeup.subscribe(), plan: Arc::clone(&self.plan) }),
            None => Box::new(Silence),
        }
    }
}

/// Hints of which the plan loses some.
struct LossyHints {
    inner: Box<dyn Hints>,
    plan: Arc<dyn FaultPlan>,
}

impl Hints for LossyHints {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                self.inner.hinted().await;
                if self.plan.draw(Operation::Hint).fault == Fault::None {
                    return;
                }
            }
        })
    }
}

struct Silence;

impl Hints for Silence {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }
}

impl<S> fmt::Debug for FaultyStorage<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultyStorage").finish_non_exhaustive()
    }
}
