//! The world: production relays over the storage in memory, in virtual time, and all that is done to them.

use super::act::{Act, RELAYS, Script, Timed};
use super::broker::{Broker, Link};
use super::ledger::{Kind, Shared, Stage, name};
use super::orders::Orders;
use super::store::{Watched, at_once};
use super::time::{Clock, Random, VirtualTimer, from_millis, to_millis};
use pillarbox_core::{
    Admin as _, Affected, Backoff, BoxFuture, Error, Filter, HeadPolicy, Observation, Observer, Relay,
    RelayConfig,
};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Short enough to wait for, long enough to see.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// How long it takes until a relay that died is started again.
const RESTART: u64 = from_millis(5_000);
/// More polls at one time are a relay that spins: the page must not hang with it.
const POLLS_AT_ONCE: u32 = 20_000;

pub(super) struct World {
    pub(super) clock: Arc<Clock>,
    pub(super) storage: MemoryStorage,
    pub(super) ledger: Shared,
    pub(super) relays: Vec<RelaySlot>,
    pub(super) orders: Orders,
    pub(super) script: Script,
    /// How many messages the store says to be claimed. Asked only when something has happened, since asking moves what has
    /// fallen due: whether somebody looks must change nothing.
    pub(super) claimed: u64,
    broker: Arc<Mutex<Broker>>,
    /// How much of the script is over.
    played: usize,
    seed: u64,
}

/// A place for a relay: it runs, or it is dead until it is started again.
#[derive(Default)]
pub(super) struct RelaySlot {
    task: Option<Task>,
    pub(super) is_frozen: bool,
    pub(super) starts_at: Option<u64>,
    starts: u64,
}

struct Task {
    future: BoxFuture<'static, Result<(), Error>>,
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl RelaySlot {
    pub(super) fn is_running(&self) -> bool {
        self.task.is_some()
    }
}

impl World {
    pub(super) fn new(seed: u64, head_policy: HeadPolicy, script: Script) -> Result<Self, Error> {
        let clock = Arc::new(Clock::default());
        let store_clock = Arc::clone(&clock);
        let config = MemoryConfig::with_clock(MemoryClock::from_source(move || store_clock.store_time()))
            .head_policy(head_policy)
            .max_strikes(2)
            .max_run(4);
        let storage = MemoryStorage::open(config)?;
        let ledger = Shared::new(Arc::clone(&clock), head_policy);
        let mut world = Self {
            orders: Orders::new(storage.clone(), ledger.clone(), seed),
            broker: Arc::new(Mutex::new(Broker::new(seed))),
            relays: (0..RELAYS).map(|_| RelaySlot::default()).collect(),
            clock,
            storage,
            ledger,
            script,
            claimed: 0,
            played: 0,
            seed,
        };
        for relay in 0..RELAYS {
            world.start(relay)?;
        }
        world.poll_relays();
        world.advance(0);
        Ok(world)
    }

    pub(super) fn broker(&self) -> MutexGuard<'_, Broker> {
        // Nothing panics under the lock.
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everything happen that is due until `to`, in milliseconds. However the way there is divided, the same happens.
    pub(super) fn advance(&mut self, to: u64) {
        let to = from_millis(to);
        loop {
            let event = self.next().filter(|at| *at <= to);
            let act = self.script.0.get(self.played).copied();
            let act = act.filter(|act| from_millis(act.at) <= to);
            match (event, act) {
                (Some(at), act) if act.is_none_or(|act| at <= from_millis(act.at)) => {
                    self.clock.set(at);
                    self.happen();
                }
                (_, Some(Timed { at, act })) => {
                    self.clock.set(from_millis(at));
                    self.played += 1;
                    self.perform(act);
                }
                (_, None) => break,
            }
            self.poll_relays();
            self.claimed = at_once(self.storage.stats()).map_or(0, |stats| stats.claimed);
        }
        self.clock.set(to);
    }

    /// The visitor does something now. It becomes part of the script.
    pub(super) fn act(&mut self, act: Act) {
        let at = to_millis(self.clock.now());
        self.script.0.insert(self.played, Timed { at, act });
        self.advance(at);
    }

    fn next(&self) -> Option<u64> {
        let starts = self.relays.iter().filter_map(|slot| slot.starts_at);
        let others = [self.clock.next(), self.broker().next(), self.orders.next()];
        others.into_iter().flatten().chain(starts).min()
    }

    fn happen(&mut self) {
        let now = self.clock.now();
        let arrived = self.broker().land(now);
        for (message, relay) in arrived {
            self.ledger.lock().delivered(message, relay);
        }
        let backlog = {
            let ledger = self.ledger.lock();
            ledger.messages.iter().filter(|fact| matches!(fact.stage, Stage::Open | Stage::Committed)).count()
        };
        self.orders.go_on(&self.clock, backlog);
        for relay in 0..RELAYS {
            if self.relays[relay].starts_at.is_some_and(|at| at <= now) {
                self.restart(relay, Kind::Notable, "is started again by its supervisor");
            }
        }
    }

    fn poll_relays(&mut self) {
        for _ in 0..POLLS_AT_ONCE {
            let due = (0..RELAYS).find(|relay| {
                let slot = &self.relays[*relay];
                !slot.is_frozen && slot.task.as_ref().is_some_and(|task| task.woken.0.load(Ordering::Relaxed))
            });
            let Some(relay) = due else { return };
            let Some(task) = &mut self.relays[relay].task else { return };
            task.woken.0.store(false, Ordering::Relaxed);
            let polled = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
            if let Poll::Ready(result) = polled {
                let why = result.err().map_or_else(|| "ended".to_owned(), |error| error.to_string());
                self.stop(relay);
                self.ledger.lock().say(Kind::Broken, format!("{} has ended by itself: {why}.", name(relay)));
            }
            loop {
                let killed = self.ledger.lock().take_killed();
                let Some((relay, message)) = killed else { break };
                let label = self.ledger.lock().label(message);
                let held = self.stop(relay);
                let text = format!("{label} has killed {}. {held}", name(relay));
                self.ledger.lock().tell(Kind::Notable, 10, text);
            }
        }
        self.ledger.lock().say(Kind::Broken, "A relay spins.");
    }

    /// Drops a relay, wherever it is: a crash. Answers in words what that means.
    fn stop(&mut self, relay: usize) -> String {
        let slot = &mut self.relays[relay];
        slot.task = None;
        slot.is_frozen = false;
        slot.starts_at = Some(self.clock.now() + RESTART);
        let mut ledger = self.ledger.lock();
        let held = ledger.in_hand(relay);
        let labels = ledger.labels(&held);
        ledger.forget_hand(relay);
        if held.is_empty() {
            "It held nothing.".to_owned()
        } else {
            format!("{labels} stays in the outbox, and waits for the lease to run out.")
        }
    }

    fn restart(&mut self, relay: usize, kind: Kind, what: &str) {
        if self.start(relay).is_ok() {
            self.ledger.lock().tell(
                kind,
                10,
                format!("{} {what}. It remembers nothing, and needs to.", name(relay)),
            );
        }
    }

    fn start(&mut self, relay: usize) -> Result<(), Error> {
        let slot = &mut self.relays[relay];
        slot.starts_at = None;
        slot.starts += 1;
        let stream = 10 * (relay as u64 + 1) + 1_000 * slot.starts;
        let mut random = Random::new(self.seed, stream);
        let storage = Watched {
            inner: self.storage.clone(),
            ledger: self.ledger.clone(),
            clock: Arc::clone(&self.clock),
            relay,
            random: Mutex::new(Random::new(self.seed, stream + 1)),
        };
        let link = Link {
            broker: Arc::clone(&self.broker),
            ledger: self.ledger.clone(),
            clock: Arc::clone(&self.clock),
            relay,
        };
        let running = Relay::new(storage, link, config())?
            .timer(VirtualTimer(Arc::clone(&self.clock)))
            .randomness(move || random.draw())
            .observer(Ears { ledger: self.ledger.clone(), relay });
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        self.relays[relay].task = Some(Task { future: Box::pin(running.run(pending())), woken, waker });
        Ok(())
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Order { key, fate } => self.orders.order(&self.clock, key, fate),
            Act::Customers { come } => {
                self.orders.let_customers_come(self.clock.now(), come);
                let what = if come { "come again" } else { "stay away" };
                self.ledger.lock().say(Kind::Act, format!("You let customers {what}."));
            }
            Act::Kill { relay } if self.relays[relay].is_running() => {
                let held = self.stop(relay);
                self.ledger.lock().tell(Kind::Act, 10, format!("You kill {}. {held}", name(relay)));
            }
            Act::Start { relay } if !self.relays[relay].is_running() => {
                self.restart(relay, Kind::Act, "is started by you");
            }
            Act::Freeze { relay } if self.relays[relay].is_running() && !self.relays[relay].is_frozen => {
                self.relays[relay].is_frozen = true;
                let text =
                    format!("You freeze {}: its process stands still, its lease does not.", name(relay));
                self.ledger.lock().tell(Kind::Act, 2, text);
            }
            Act::Thaw { relay } if self.relays[relay].is_frozen => {
                self.relays[relay].is_frozen = false;
                self.ledger.lock().tell(
                    Kind::Act,
                    3,
                    format!("You let {} go on, as if nothing had happened.", name(relay)),
                );
            }
            Act::Cut if self.broker().is_up() => {
                self.broker().set_up(false);
                self.ledger.lock().say(Kind::Act, "You cut the broker off, with all that is in the air.");
            }
            Act::Mend if !self.broker().is_up() => {
                self.broker().set_up(true);
                self.ledger
                    .lock()
                    .say(Kind::Act, "You connect the broker again. The relays find out by themselves.");
            }
            Act::LoseAnswer => {
                let mut ledger = self.ledger.lock();
                ledger.loses_answer = true;
                ledger
                    .say(Kind::Act, "You break the line to the outbox: the next answer to a report is lost.");
            }
            Act::Redrive { message } => self.redrive(message),
            Act::Discard { message } => self.discard(message),
            Act::Kill { .. }
            | Act::Start { .. }
            | Act::Freeze { .. }
            | Act::Thaw { .. }
            | Act::Cut
            | Act::Mend => {}
        }
    }

    fn redrive(&mut self, message: usize) {
        let Some(letter) = self.dead_letter(message) else { return };
        // First, since a relay may be handed it at once.
        self.ledger.lock().redriven(message);
        at_once::<Affected>(self.storage.redrive(letter, 1, false));
        let text =
            format!("You repair {} and redrive it: it is pending again.", self.ledger.lock().label(message));
        self.ledger.lock().tell(Kind::Act, 7, text);
    }

    fn discard(&mut self, message: usize) {
        let Some(letter) = self.dead_letter(message) else { return };
        self.ledger.lock().messages[message].stage = Stage::Discarded;
        at_once::<Affected>(self.storage.discard(letter, 1, false));
        let text = format!("You discard {}. Nobody else ever does.", self.ledger.lock().label(message));
        self.ledger.lock().tell(Kind::Act, 8, text);
    }

    fn dead_letter(&self, message: usize) -> Option<Filter> {
        let ledger = self.ledger.lock();
        let fact = ledger.messages.get(message).filter(|fact| fact.stage == Stage::Dead)?;
        Some(Filter::id(fact.id))
    }
}

fn config() -> RelayConfig {
    RelayConfig::default()
        .batch_size(4)
        .max_in_flight(4)
        .claims_in_flight(1)
        .publishes_in_flight(2)
        .lease(LEASE)
        .publish_timeout(Duration::from_secs(3))
        .max_attempts(3)
        .retry(Backoff::new(Duration::from_millis(1_500), Duration::from_secs(6)))
        .pause(Backoff::new(Duration::from_millis(800), Duration::from_secs(3)))
}

/// Hears what a relay says of the broker; all else is seen at the store.
struct Ears {
    ledger: Shared,
    relay: usize,
}

impl Observer for Ears {
    fn observe(&self, observation: &Observation<'_>) {
        let mut ledger = self.ledger.lock();
        let relay = name(self.relay);
        match observation {
            Observation::Paused { pause, .. } => {
                let kind = if ledger.paused[self.relay] { Kind::Routine } else { Kind::Notable };
                ledger.paused[self.relay] = true;
                let pause = pause.as_secs_f64();
                let text = format!(
                    "{relay} finds no broker, and asks again in {pause:.1} s. An outage is no message's fault."
                );
                ledger.tell(kind, 4, text);
            }
            Observation::Resumed { .. } if std::mem::take(&mut ledger.paused[self.relay]) => {
                ledger.tell(Kind::Notable, 4, format!("The broker answers {relay} again: it goes on."));
            }
            Observation::CutOff { .. } => {
                ledger.tell(
                    Kind::Notable,
                    3,
                    format!("{relay} cuts a send off: its lease no longer covers it."),
                );
            }
            _ => {}
        }
    }
}
