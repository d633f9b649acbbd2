//! The simulated broker, and a relay's connection to it.

use super::kernel::{Kernel, Owner};
use super::relay_side::Weather;
use super::workload::Poison;
use crate::history::{Event, Recorder};
use pillarbox_core::{
    Destination, Error, ErrorKind, Message, Outcomes, Text, Transport, TransportGuarantees,
};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Takes messages, and remembers how often each was sent.
pub(super) struct Broker {
    pub(super) poison: Vec<Poison>,
    pub(super) sends: Vec<AtomicU32>,
    pub(super) destinations: u16,
    pub(super) prefix_per_key: bool,
    pub(super) deduplicates: bool,
}

/// One relay's connection.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) broker: Arc<Broker>,
    pub(super) recorder: Recorder,
    pub(super) kernel: Arc<Kernel>,
    pub(super) owner: Owner,
}

impl Link {
    /// Takes one message. `None` if its sender dies of it.
    fn take(&self, message: &Message) -> Option<Result<(), Error>> {
        let Some(number) = self.recorder.number(message.id()) else {
            self.recorder.delivered(message);
            return Some(Ok(()));
        };
        let sends = self.broker.sends[number as usize].fetch_add(1, Ordering::Relaxed);
        match self.broker.poison[number as usize] {
            Poison::Refused => {
                let error = Error::new(ErrorKind::Rejected, "publish").describe("refused for good");
                return Some(Err(error.not_applied()));
            }
            Poison::Unroutable { sends: first } if sends < first => {
                let error = Error::new(ErrorKind::Unroutable, "publish").describe("no queue is bound");
                return Some(Err(error.not_applied()));
            }
            Poison::Deadly { sends: first, arrives } if sends < first => {
                if arrives {
                    self.recorder.note(Event::Disturbed { message: number });
                    self.recorder.delivered(message);
                }
                self.kernel.kill(self.owner);
                return None;
            }
            _ => {}
        }
        self.recorder.delivered(message);
        Some(Ok(()))
    }
}

impl Transport for Link {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let mut failed: Vec<&Text> = Vec::new();
        for (index, message) in batch.iter().enumerate() {
            // What follows a failed message of its key is not accepted.
            if self.broker.prefix_per_key && message.key().is_some_and(|key| failed.contains(&key)) {
                let error = Error::new(ErrorKind::Unavailable, "publish").not_applied();
                outcomes.set(index, Err(error));
                continue;
            }
            match self.take(message) {
                Some(outcome) => {
                    if outcome.is_err() {
                        failed.extend(message.key());
                    }
                    outcomes.set(index, outcome);
                }
                None => pending().await,
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn destination(&self, message: &Message) -> Destination {
        let is_second = self.broker.destinations > 1 && message.topic().ends_with('2');
        Destination(u16::from(is_second))
    }

    fn destinations(&self) -> Vec<Destination> {
        (0..self.broker.destinations).map(Destination).collect()
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees {
            deduplicates: self.broker.deduplicates,
            max_payload: u32::MAX,
            prefix_per_key: self.broker.prefix_per_key,
        }
    }
}

/// Notes which messages were in a publish that was disturbed: such a message may arrive twice.
pub(super) struct Watched<T> {
    pub(super) inner: T,
    pub(super) recorder: Recorder,
    pub(super) weather: Arc<Weather>,
}

impl<T: Transport> Transport for Watched<T> {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        // The plan draws its fault as soon as the publish begins.
        self.weather.publishes(batch.iter().filter_map(|message| self.recorder.number(message.id())));
        let mut open = Open { recorder: &self.recorder, batch, is_over: false };
        self.inner.publish(batch, outcomes).await;
        open.is_over = true;
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        self.inner.probe(destination).await
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

/// A publish that is not over. Dropping it disturbs it.
struct Open<'a> {
    recorder: &'a Recorder,
    batch: &'a [Message],
    is_over: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            for message in self.batch.iter().filter_map(|message| self.recorder.number(message.id())) {
                self.recorder.note(Event::Disturbed { message });
            }
        }
    }
}
