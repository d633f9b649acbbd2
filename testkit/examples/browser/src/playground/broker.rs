//! The broker, what is in the air on the way to it, and a relay's connection.

use super::act::{Fate, RELAYS};
use super::ledger::Shared;
use super::time::{Clock, Random, nanos};
use pillarbox_core::{Destination, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees};
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long it takes until a relay learns that nobody is there.
const REFUSAL: Duration = Duration::from_millis(300);
/// What a deadly message does to its relay, it does after so long.
const AGONY: Duration = Duration::from_millis(700);

/// The broker of a world, and the wires to it.
pub(super) struct Broker {
    is_up: bool,
    random: Random,
    last: u64,
    flights: Vec<Flight>,
    listeners: [Vec<Waker>; RELAYS],
}

/// One message in the air. It goes on when its sender dies.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    number: u64,
    pub(super) message: usize,
    pub(super) relay: usize,
    pub(super) sent: u64,
    pub(super) arrives: u64,
    pub(super) confirmed: u64,
    pub(super) has_arrived: bool,
    /// No queue takes it.
    pub(super) bounces: bool,
    outcome: Option<Landing>,
    is_heard: bool,
}

#[derive(Clone, Copy, Debug)]
enum Landing {
    Confirmed,
    Unroutable,
    ConnectionLost,
}

impl Broker {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            is_up: true,
            random: Random::new(seed, 100),
            last: 0,
            flights: Vec::new(),
            listeners: [const { Vec::new() }; RELAYS],
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// What is in the air, or on its way back.
    pub(super) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter().filter(|flight| flight.outcome.is_none())
    }

    /// When something lands next.
    pub(super) fn next(&self) -> Option<u64> {
        self.flights().map(|flight| if flight.has_arrived { flight.confirmed } else { flight.arrives }).min()
    }

    /// Lets land what is due. Answers what has arrived, and from whom.
    pub(super) fn land(&mut self, now: u64) -> Vec<(usize, usize)> {
        let mut arrived = Vec::new();
        for flight in self.flights.iter_mut().filter(|flight| flight.outcome.is_none()) {
            if !flight.has_arrived && flight.arrives <= now {
                flight.has_arrived = true;
                if !flight.bounces {
                    arrived.push((flight.message, flight.relay));
                }
            }
            if flight.has_arrived && flight.confirmed <= now {
                flight.outcome = Some(if flight.bounces { Landing::Unroutable } else { Landing::Confirmed });
                self.listeners[flight.relay].drain(..).for_each(Waker::wake);
            }
        }
        self.forget();
        arrived
    }

    /// Cuts all connections, with what is in the air; or lets them be opened again.
    pub(super) fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
        if !is_up {
            for flight in self.flights.iter_mut().filter(|flight| flight.outcome.is_none()) {
                flight.outcome = Some(Landing::ConnectionLost);
            }
            self.listeners.iter_mut().flat_map(|wakers| wakers.drain(..)).for_each(Waker::wake);
            self.forget();
        }
    }

    /// Nobody listens for these any more.
    fn hang_up(&mut self, flights: &[u64]) {
        for flight in self.flights.iter_mut().filter(|flight| flights.contains(&flight.number)) {
            flight.is_heard = false;
        }
        self.forget();
    }

    fn send(&mut self, now: u64, place: u64, relay: usize, message: usize, bounces: bool) -> u64 {
        self.last += 1;
        // One behind the other, as on a wire.
        let sent = now + place * nanos(Duration::from_millis(180));
        let arrives = sent + nanos(self.random.between(700, 900));
        let confirmed = arrives + nanos(self.random.between(350, 550));
        self.flights.push(Flight {
            number: self.last,
            message,
            relay,
            sent,
            arrives,
            confirmed,
            has_arrived: false,
            bounces,
            outcome: None,
            is_heard: true,
        });
        self.last
    }

    fn forget(&mut self) {
        self.flights.retain(|flight| flight.is_heard || flight.outcome.is_none());
    }
}

/// One relay's connection.
pub(super) struct Link {
    pub(super) broker: Arc<Mutex<Broker>>,
    pub(super) ledger: Shared,
    pub(super) clock: Arc<Clock>,
    pub(super) relay: usize,
}

impl Link {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        // Nothing panics under the lock.
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<(), Error> {
        if self.broker().is_up {
            return Ok(());
        }
        self.clock.sleep(REFUSAL).await;
        Err(refused())
    }

    /// Sends a batch. A relay that dies of a message never comes back from here.
    async fn send(&self, batch: &[Message], flights: &mut Vec<u64>) {
        for (message, place) in batch.iter().zip(0..) {
            let (number, fate) = {
                let ledger = self.ledger.lock();
                let number = ledger.number(message.id());
                (number, ledger.fate(number))
            };
            match fate {
                Fate::Deadly => {
                    self.ledger.lock().chokes(self.relay, number);
                    self.clock.sleep(AGONY).await;
                    self.ledger.lock().kill(self.relay, number);
                    pending::<()>().await;
                }
                fate => {
                    let bounces = fate == Fate::Unroutable;
                    flights.push(self.broker().send(self.clock.now(), place, self.relay, number, bounces));
                }
            }
        }
    }
}

/// A publish that listens for its flights; dropped, it does so no more, and they fly on.
struct Listening<'a> {
    link: &'a Link,
    flights: Vec<u64>,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.link.broker().hang_up(&self.flights);
    }
}

impl Transport for Link {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        if self.connect().await.is_err() {
            outcomes.fill(|| Err(refused()));
            return;
        }
        let mut listening = Listening { link: self, flights: Vec::with_capacity(batch.len()) };
        self.send(batch, &mut listening.flights).await;
        poll_fn(|context| {
            let mut broker = self.broker();
            for flight in &broker.flights {
                if let Some(landing) = flight.outcome
                    && let Some(index) = listening.flights.iter().position(|number| *number == flight.number)
                {
                    outcomes.set(index, outcome_of(landing));
                }
            }
            if outcomes.is_complete() {
                return Poll::Ready(());
            }
            broker.listeners[self.relay].push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        self.connect().await?;
        self.clock.sleep(REFUSAL).await;
        self.connect().await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: false }
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Unavailable, "publish").describe("connection refused").not_applied()
}

fn outcome_of(landing: Landing) -> Result<(), Error> {
    match landing {
        Landing::Confirmed => Ok(()),
        Landing::Unroutable => {
            Err(Error::new(ErrorKind::Unroutable, "publish").describe("no queue is bound").not_applied())
        }
        Landing::ConnectionLost => {
            Err(Error::new(ErrorKind::Unavailable, "publish").describe("the connection was lost"))
        }
    }
}
