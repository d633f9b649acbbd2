use async_trait::async_trait;
use pillarbox_benches::{BoxError, Case, Keys, Subject, Work, fill_and_drain};
use std::time::Duration;

/// What one drain did.
pub(crate) struct Measured {
    pub(crate) drained: u32,
    pub(crate) took: Duration,
}

/// Somebody who drains a queue.
#[async_trait(?Send)]
pub(crate) trait Peer {
    fn name(&self) -> &'static str;
    /// What it does not promise of what Pillarbox does.
    fn promises_less(&self) -> &'static str;
    /// It drains one of so many messages, since it would take too long for all.
    fn part(&self) -> u32;
    /// Fills an empty queue with so many payloads of 256 bytes, and times their way out of it to a receiver that only counts.
    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError>;
}

/// Pillarbox, one relay, unkeyed.
pub(crate) struct Ours<S> {
    subject: S,
    batch: u32,
}

impl<S> Ours<S> {
    pub(crate) fn new(subject: S, batch: u32) -> Self {
        Self { subject, batch }
    }
}

#[async_trait(?Send)]
impl<S: Subject> Peer for Ours<S> {
    fn name(&self) -> &'static str {
        "Pillarbox"
    }

    fn promises_less(&self) -> &'static str {
        ""
    }

    fn part(&self) -> u32 {
        1
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        let batch = self.batch;
        let case =
            Case { work: Work::Drain, keys: Keys::None, failing_percent: 0, relays: 1, messages, batch };
        let took = fill_and_drain(&mut self.subject, case).await?;
        Ok(Measured { drained: messages, took })
    }
}

/// The payload of everybody: 256 bytes that are text too, for those who store text.
pub(crate) fn payload() -> String {
    "x".repeat(pillarbox_benches::PAYLOAD)
}
