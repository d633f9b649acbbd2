//! What the page draws.

use super::act::KEYS;
use super::ledger::{Event, Fact, Ledger, Stage};
use super::store::list;
use super::time::{Clock, to_millis};
use super::world::{LEASE, World};
use pillarbox_core::{ListState, Stored};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// For how long a message that was settled is still shown.
const AFTERGLOW: u64 = 900_000_000;

/// The world at one time. Times are in milliseconds.
#[derive(Serialize)]
pub(crate) struct Snapshot {
    now: u64,
    lease: u64,
    script: String,
    customers: bool,
    rows: u64,
    messages: Vec<MessageView>,
    relays: Vec<RelayView>,
    broker: BrokerView,
    totals: Totals,
    /// When the first lease ends, from now on.
    next_lease_end: Option<u64>,
    events: Vec<Event>,
}

#[derive(Serialize)]
struct MessageView {
    number: usize,
    label: String,
    key: usize,
    state: &'static str,
    /// By whose claim.
    relay: Option<usize>,
    /// How long the claim lasts, or the wait for the next attempt.
    left: Option<u64>,
    attempts: u32,
    strikes: u32,
    is_bad: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
struct RelayView {
    state: &'static str,
    starts_in: Option<u64>,
    /// Whether it leaves the broker alone.
    waits_for_broker: bool,
    hand: Vec<Held>,
    /// How long its first lease lasts.
    left: Option<u64>,
}

#[derive(Serialize)]
struct Held {
    message: usize,
    label: String,
    key: usize,
    /// It believes so, and it is not so any more.
    is_stale: bool,
}

#[derive(Serialize)]
struct BrokerView {
    is_up: bool,
    flights: Vec<FlightView>,
    /// How many messages of each key it has taken in all, and how many of them again.
    taken: [u64; KEYS.len()],
    again: [u64; KEYS.len()],
    /// The last ones of each key in order of their first deliveries.
    last: [Vec<TakenView>; KEYS.len()],
}

#[derive(Serialize)]
struct FlightView {
    message: usize,
    label: String,
    key: usize,
    relay: usize,
    /// From 0 at the relay to 1 at the broker.
    way: f64,
    /// The confirmation, or the refusal, on its way back.
    is_answer: bool,
    bounces: bool,
}

#[derive(Serialize)]
struct TakenView {
    label: String,
    again: u64,
}

#[derive(Serialize)]
struct Totals {
    committed: u64,
    rolled_back: u64,
    waiting: u64,
    delivered: u64,
    again: u64,
    dead: u64,
    discarded: u64,
    lost: u64,
    disordered: u64,
}

/// What the store lists, and in which state.
type Found = HashMap<usize, (&'static str, Stored)>;

impl World {
    pub(super) fn snapshot(&self) -> Snapshot {
        let found = self.found();
        let mut ledger = self.ledger.lock();
        let now = self.clock.now();
        let store_now = self.clock.store_time();
        let holders = ledger.messages.iter().filter_map(|fact| fact.holder.as_ref());
        let lease_ends = holders.map(|holder| holder.until).filter(|until| *until > store_now).min();
        Snapshot {
            now: to_millis(now),
            lease: milliseconds(LEASE),
            script: self.script.to_string(),
            customers: self.orders.customers_come(),
            rows: self.orders.rows(),
            messages: self.messages(&ledger, &found),
            relays: (0..self.relays.len()).map(|relay| self.relay(&ledger, relay)).collect(),
            broker: self.broker_view(&ledger),
            totals: totals(&ledger, &found, self.claimed),
            next_lease_end: lease_ends.map(|until| to_millis(Clock::since_start(until).saturating_sub(now))),
            events: ledger.take_events(),
        }
    }

    fn found(&self) -> Found {
        let mut by_number = HashMap::new();
        for (state, name) in
            [(ListState::Pending, "pending"), (ListState::Scheduled, "waiting"), (ListState::Dead, "dead")]
        {
            let stored = list(&self.storage, state);
            let ledger = self.ledger.lock();
            by_number.extend(
                stored.into_iter().filter_map(|stored| Some((ledger.number(stored.id()?), (name, stored)))),
            );
        }
        by_number
    }

    fn messages(&self, ledger: &Ledger, found: &Found) -> Vec<MessageView> {
        let now = self.clock.now();
        let view = |(number, fact): (usize, &Fact)| {
            let stored = found.get(&number);
            let state = match (fact.stage, stored) {
                (Stage::Open, _) => "open",
                (_, Some((state, _))) => state,
                (Stage::Committed, None) => "claimed",
                (Stage::Published(at), None) if now.saturating_sub(at) < AFTERGLOW => "published",
                _ => return None,
            };
            let stored = stored.map(|(_, stored)| stored);
            let holder = fact.holder.as_ref().filter(|_| state == "claimed");
            let until = holder.map(|holder| holder.until).or_else(|| stored?.due_at);
            Some(MessageView {
                number,
                label: ledger.label(number),
                key: fact.key,
                state,
                relay: holder.map(|holder| holder.relay),
                left: until.map(|until| milliseconds(until.since(self.clock.store_time()))),
                attempts: stored.map_or(0, |stored| stored.attempts),
                strikes: stored.map_or(0, |stored| stored.strikes),
                is_bad: fact.is_bad(),
                reason: stored.and_then(|stored| stored.reason.as_ref()).map(ToString::to_string),
            })
        };
        ledger.messages.iter().enumerate().filter_map(view).collect()
    }

    fn relay(&self, ledger: &Ledger, relay: usize) -> RelayView {
        let slot = &self.relays[relay];
        let state = match (slot.is_running(), slot.is_frozen) {
            (false, _) => "dead",
            (true, true) => "frozen",
            (true, false) => "running",
        };
        let (now, store_now) = (self.clock.now(), self.clock.store_time());
        let mut first = None;
        let mut hand = Vec::new();
        for (held, message) in ledger.hands[relay]
            .iter()
            .flat_map(|hand| hand.messages.iter().map(move |number| (hand, *number)))
        {
            let fact = &ledger.messages[message];
            let until = fact.holder.filter(|holder| holder.token == held.token).map(|holder| holder.until);
            first = first.into_iter().chain(until).min();
            let (label, key) = (ledger.label(message), fact.key);
            hand.push(Held { message, label, key, is_stale: until.is_none() });
        }
        RelayView {
            state,
            starts_in: slot.starts_at.map(|at| to_millis(at.saturating_sub(now))),
            waits_for_broker: ledger.paused[relay],
            hand,
            left: first.map(|until| milliseconds(until.since(store_now))),
        }
    }

    fn broker_view(&self, ledger: &Ledger) -> BrokerView {
        let (broker, now) = (self.broker(), self.clock.now());
        let flights = broker.flights().filter(|flight| flight.sent <= now).map(|flight| {
            let there = part(now, flight.sent, flight.arrives);
            let back = part(now, flight.arrives, flight.confirmed);
            FlightView {
                message: flight.message,
                label: ledger.label(flight.message),
                key: ledger.messages[flight.message].key,
                relay: flight.relay,
                way: if flight.has_arrived { 1.0 - back } else { there },
                is_answer: flight.has_arrived,
                bounces: flight.bounces,
            }
        });
        let mut view = BrokerView {
            is_up: broker.is_up(),
            flights: flights.collect(),
            taken: [0; KEYS.len()],
            again: [0; KEYS.len()],
            last: [const { Vec::new() }; KEYS.len()],
        };
        for message in ledger.taken.iter().copied() {
            let fact = &ledger.messages[message];
            view.taken[fact.key] += 1;
            view.again[fact.key] += fact.deliveries - 1;
            view.last[fact.key].push(TakenView { label: ledger.label(message), again: fact.deliveries - 1 });
        }
        for last in &mut view.last {
            last.drain(..last.len().saturating_sub(6));
        }
        view
    }
}

fn totals(ledger: &Ledger, found: &Found, claimed: u64) -> Totals {
    let count = |is: &dyn Fn(&Fact) -> bool| ledger.messages.iter().filter(|fact| is(fact)).count() as u64;
    let delivered = count(&|fact| fact.deliveries > 0);
    let stored: Vec<usize> = found.keys().copied().collect();
    Totals {
        committed: count(&|fact| !matches!(fact.stage, Stage::Open | Stage::RolledBack)),
        rolled_back: count(&|fact| fact.stage == Stage::RolledBack),
        waiting: count(&|fact| fact.stage == Stage::Committed),
        delivered,
        again: ledger.messages.iter().map(|fact| fact.deliveries).sum::<u64>() - delivered,
        dead: count(&|fact| fact.stage == Stage::Dead),
        discarded: count(&|fact| fact.stage == Stage::Discarded),
        lost: ledger.lost(&stored, claimed),
        disordered: ledger.disordered,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
fn part(now: u64, from: u64, to: u64) -> f64 {
    let whole = to.saturating_sub(from).max(1) as f64;
    (now.saturating_sub(from) as f64 / whole).min(1.0)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
