use super::{BREATH, Fault, FaultPlan, Injection, Operation, Surroundings, injected};
use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

/// A transport whose calls go wrong as a plan says.
///
/// What fails fails for the rest of its batch, so that a transport which promises
/// [`prefix_per_key`](TransportGuarantees::prefix_per_key) goes on keeping it.
#[derive(Clone)]
pub struct FaultyTransport<T> {
    inner: T,
    plan: Arc<dyn FaultPlan>,
    surroundings: Arc<dyn Surroundings>,
}

impl<T: Transport + Clone + 'static> FaultyTransport<T> {
    /// `inner`, with the faults of `plan`.
    pub fn new(inner: T, plan: impl FaultPlan + 'static, surroundings: impl Surroundings + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), surroundings: Arc::new(surroundings) }
    }

    async fn wait(&self, duration: Duration) {
        if !duration.is_zero() {
            self.surroundings.sleep(duration).await;
        }
    }

    async fn stop(&self, duration: Duration) {
        self.surroundings.pause(duration);
        self.surroundings.sleep(BREATH).await;
    }

    fn publish_later(&self, batch: &[Message], after: Duration) {
        let (inner, batch) = (self.inner.clone(), batch.to_vec());
        let surroundings = Arc::clone(&self.surroundings);
        self.surroundings.later(Box::pin(async move {
            surroundings.sleep(after).await;
            let mut outcomes = room(batch.len());
            inner.publish(&batch, &mut outcomes).await;
        }));
    }
}

impl<T: Transport + Clone + 'static> Transport for FaultyTransport<T> {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let Injection { request, fault, reply } = self.plan.draw(Operation::Publish);
        self.wait(request).await;
        let fail = |kind: ErrorKind| move || Err(injected(kind, Operation::Publish));
        match fault {
            Fault::None => self.inner.publish(batch, outcomes).await,
            Fault::Refused(kind) => outcomes.fill(|| Err(injected(kind, Operation::Publish).not_applied())),
            Fault::FailBefore(kind) => outcomes.fill(fail(kind)),
            Fault::FailAfter(kind) => {
                self.inner.publish(batch, &mut room(batch.len())).await;
                outcomes.fill(fail(kind));
            }
            Fault::Late(kind, after) => {
                self.publish_later(batch, after);
                outcomes.fill(fail(kind));
            }
            Fault::Duplicate => {
                self.inner.publish(batch, &mut room(batch.len())).await;
                self.inner.publish(batch, outcomes).await;
            }
            Fault::HangBefore => pending().await,
            Fault::HangAfter => {
                self.inner.publish(batch, &mut room(batch.len())).await;
                pending::<()>().await;
            }
            Fault::PauseBefore(duration) => {
                self.stop(duration).await;
                self.inner.publish(batch, outcomes).await;
            }
            Fault::PauseAfter(duration) => {
                self.inner.publish(batch, outcomes).await;
                self.stop(duration).await;
            }
            Fault::Part(kind, first) => {
                let first = first as usize % batch.len().max(1);
                let mut known = room(first);
                self.inner.publish(&batch[..first], &mut known).await;
                for index in 0..first {
                    if let Some(outcome) = known.take(index) {
                        outcomes.set(index, outcome);
                    }
                }
                outcomes.fill(fail(kind));
            }
        }
        self.wait(reply).await;
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        let Injection { request, fault, reply } = self.plan.draw(Operation::Probe);
        self.wait(request).await;
        match fault {
            Fault::Refused(kind)
            | Fault::FailBefore(kind)
            | Fault::FailAfter(kind)
            | Fault::Late(kind, _)
            | Fault::Part(kind, _) => return Err(injected(kind, Operation::Probe)),
            Fault::HangBefore | Fault::HangAfter => pending().await,
            Fault::PauseBefore(duration) | Fault::PauseAfter(duration) => self.stop(duration).await,
            Fault::None | Fault::Duplicate => {}
        }
        let answer = self.inner.probe(destination).await;
        self.wait(reply).await;
        answer
    }

    fn destination(&self, message: &Message) -> Destination {
        self.inner.destination(message)
    }

    fn destinations(&self) -> Vec<Destination> {
        self.inner.destinations()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        self.inner.guarantees(destination)
    }
}

fn room(messages: usize) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(messages);
    outcomes
}

impl<T> fmt::Debug for FaultyTransport<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultyTransport").finish_non_exhaustive()
    }
}
