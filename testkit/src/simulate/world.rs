//! One run: who acts when, until everything has arrived.

use super::broker::{Broker, Link, Watched};
use super::kernel::{Due, Kernel, Owner, Sleep, TaskWaker, WORLD, nanos};
use super::relay_side::{Around, Side, VirtualTimer, Weather, WorldPlan};
use super::workload::{Fate, Workload};
use super::{Setup, Simulation, Subject};
use crate::choices::Choices;
use crate::fault::{FaultyStorage, FaultyTransport, Rates, SeededPlan};
use crate::history::{Ending, Event, History, RecordedStorage, Recorder};
use crate::random::Random;
use pillarbox_core::{Admin, Affected, BoxFuture, Error, ErrorKind, Filter, HeadPolicy, Relay, Storage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(super) struct World<'a, U: Subject> {
    subject: &'a U,
    simulation: &'a Simulation,
    choices: Choices,
    kernel: Arc<Kernel>,
    recorder: Recorder,
    workload: Workload,
    rates: Rates,
    storage: U::Storage,
    broker: Arc<Broker>,
    relays: Vec<RelaySlot>,
    tasks: Vec<Option<Task>>,
    /// Tasks that are no relays and have not ended.
    late: u32,
    transactions: Vec<Option<U::Transaction>>,
    open_transactions: usize,
    acts: Vec<Act>,
    healed_at: Option<u64>,
    drained_at: Option<u64>,
}

struct RelaySlot {
    task: Option<u32>,
    weather: Arc<Weather>,
    stop: Arc<Stop>,
}

struct Task {
    future: BoxFuture<'static, Result<(), Error>>,
    task_waker: Arc<TaskWaker>,
    waker: Waker,
    owner: Owner,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Begin(u32),
    End(u32),
    Start(Owner),
    Crash(Owner),
    Stop(Owner),
    Jump(Owner, Duration),
    JumpStore(Duration),
    Cut(Owner, Side, Duration),
    Slow(Duration),
    Operate,
    Heal,
    Look,
}

/// Polls at one instant after which time counts as standing still.
const POLLS_AT_ONCE: u32 = 5_000;
/// Polls after which a run is given up: a hundred times what one takes.
const POLLS: u32 = 400_000;

const SITE_SCHEDULE: u16 = 30;
const SITE_COUNT: u16 = 31;
const SITE_WHEN: u16 = 32;
const SITE_LONG: u16 = 33;
const SITE_RESTART: u16 = 34;
const SITE_OPERATE: u16 = 35;
const SITE_RANDOM: u16 = 36;

impl<'a, U: Subject> World<'a, U> {
    pub(super) fn new(subject: &'a U, simulation: &'a Simulation, choices: Choices) -> Self {
        let workload = Workload::new(&choices, simulation);
        let kernel = Kernel::new(simulation.relays);
        let clock = Arc::clone(&kernel);
        let recorder = Recorder::new(workload.messages.clone(), move || Duration::from_nanos(clock.now()));
        let (clock, timer) = (Arc::clone(&kernel), Arc::clone(&kernel));
        let storage = subject.open(Setup {
            clock: Arc::new(move || clock.store_time()),
            sleep: Arc::new(move |duration| Box::pin(Sleep::during(Arc::clone(&timer), duration))),
            head_policy: workload.terms.head_policy,
            max_strikes: workload.terms.max_strikes,
            max_run: workload.max_run,
            keep_published: workload.keep_published,
        });
        let broker = Arc::new(Broker {
            poison: workload.poison.clone(),
            sends: workload.poison.iter().map(|_| AtomicU32::new(0)).collect(),
            destinations: workload.destinations,
            prefix_per_key: workload.prefix_per_key,
            deduplicates: false,
        });
        let relays = (0..simulation.relays)
            .map(|_| RelaySlot { task: None, weather: Arc::default(), stop: Arc::default() })
            .collect();
        let mut transactions = Vec::new();
        transactions.resize_with(workload.plans.len(), || None);
        Self {
            subject,
            simulation,
            rates: simulation.rates.swarm(&choices, WORLD),
            choices,
            kernel,
            recorder,
            open_transactions: workload.plans.len(),
            workload,
            storage,
            broker,
            relays,
            tasks: Vec::new(),
            late: 0,
            transactions,
            acts: Vec::new(),
            healed_at: None,
            drained_at: None,
        }
    }

    pub(super) fn run(mut self) -> History {
        self.plan();
        let (mut instant, mut polls, mut all_polls) = (0, 0, 0);
        loop {
            if self.kernel.take_requests() {
                self.serve();
            }
            let choose = |ready| self.choices.index(WORLD, SITE_SCHEDULE, ready);
            if let Some(task) = self.kernel.take_ready(choose) {
                if self.kernel.now() > instant {
                    (instant, polls) = (self.kernel.now(), 0);
                }
                polls += 1;
                all_polls += 1;
                if polls > POLLS_AT_ONCE || all_polls > POLLS {
                    self.recorder.note(Event::Spun);
                    break;
                }
                self.poll(task);
                continue;
            }
            match self.kernel.advance() {
                Due::Act(number) => {
                    if self.act(self.acts[number as usize]) {
                        break;
                    }
                }
                Due::Woken => {}
                Due::Never => break,
            }
        }
        self.tasks.clear();
        self.history()
    }

    /// Drops whom a message has killed, and starts what runs beside the relays.
    fn serve(&mut self) {
        while let Some(owner) = self.kernel.take_killed() {
            self.crash(owner);
        }
        while let Some(future) = self.kernel.take_spawned() {
            self.late += 1;
            let future = async move {
                future.await;
                Ok(())
            };
            self.add(Box::pin(future), WORLD);
        }
    }

    fn history(&self) -> History {
        let look = self.subject.look(&self.storage);
        let mut dead: Vec<u32> = look.dead.iter().filter_map(|id| self.recorder.number(*id)).collect();
        dead.sort_unstable();
        History {
            terms: self.workload.terms,
            messages: self.workload.messages.clone(),
            records: self.recorder.take(),
            end: Ending { remaining: look.remaining, dead },
        }
    }

    /// Everything that is decided beforehand.
    fn plan(&mut self) {
        for place in 0..self.workload.plans.len() {
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            let (begins, ends) = (self.workload.plans[place].begins, self.workload.plans[place].ends);
            self.at(begins, Act::Begin(number));
            self.at(ends, Act::End(number));
        }
        let chaos = nanos(self.simulation.chaos);
        for owner in 1..=self.simulation.relays {
            self.at(0, Act::Start(owner));
            self.now_and_then(owner, 3, |_| Act::Crash(owner));
            self.now_and_then(owner, 2, |_| Act::Stop(owner));
            self.now_and_then(owner, 2, |long| Act::Jump(owner, long * 2));
            self.now_and_then(owner, 2, |long| Act::Cut(owner, Side::Store, long));
            self.now_and_then(owner, 2, |long| Act::Cut(owner, Side::Broker, long));
        }
        self.now_and_then(WORLD, 2, Act::Slow);
        self.now_and_then(WORLD, 2, |long| Act::JumpStore(long / 2));
        self.now_and_then(WORLD, 3, |_| Act::Operate);
        self.at(chaos, Act::Heal);
    }

    /// Puts fewer than `most` acts into the time of chaos, each with a duration of up to two leases.
    fn now_and_then(&mut self, actor: Owner, most: u64, act: impl Fn(Duration) -> Act) {
        let count = if self.simulation.faults { self.choices.below(actor, SITE_COUNT, most) } else { 0 };
        for _ in 0..count {
            let at = self.choices.below(actor, SITE_WHEN, nanos(self.simulation.chaos));
            let long = self.choices.below(actor, SITE_LONG, nanos(self.workload.lease) * 2);
            self.at(at, act(Duration::from_nanos(long)));
        }
    }

    fn at(&mut self, at: u64, act: Act) {
        self.acts.push(act);
        self.kernel.act_at(at, u32::try_from(self.acts.len() - 1).unwrap_or(u32::MAX));
    }

    fn after(&mut self, wait: Duration, act: Act) {
        self.at(self.kernel.now() + nanos(wait), act);
    }

    fn add(&mut self, future: BoxFuture<'static, Result<(), Error>>, owner: Owner) -> u32 {
        let number = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let task_waker = self.kernel.waker(number);
        let waker = Waker::from(Arc::clone(&task_waker));
        self.tasks.push(Some(Task { future, task_waker, waker, owner }));
        number
    }

    fn poll(&mut self, number: u32) {
        let Some(Some(task)) = self.tasks.get_mut(number as usize) else { return };
        if let Some(until) = self.kernel.paused(task.owner) {
            // It stays queued until then, so that it is put back once.
            self.kernel.resume_at(number, until);
            return;
        }
        task.task_waker.taken();
        let mut context = Context::from_waker(&task.waker);
        let future: Pin<&mut _> = task.future.as_mut();
        // A panic is a crash, and a violation.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)));
        let owner = task.owner;
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => {
                self.tasks[number as usize] = None;
                self.ended(owner, result);
            }
            Err(_) => {
                self.tasks[number as usize] = None;
                if owner != WORLD {
                    self.recorder.by(owner).note(Event::Ended { allowed: false });
                    self.restart(owner);
                }
            }
        }
    }

    fn ended(&mut self, owner: Owner, result: Result<(), Error>) {
        if owner == WORLD {
            self.late -= 1;
            return;
        }
        let was_asked = self.relays[usize::from(owner) - 1].stop.was_asked();
        let event = match result {
            Ok(()) if was_asked => Event::Stopped,
            Ok(()) => Event::Ended { allowed: false },
            // Refused at its first calls: the operator starts it again.
            Err(error) => Event::Ended { allowed: error.kind() == ErrorKind::Misconfigured },
        };
        self.recorder.by(owner).note(event);
        self.restart(owner);
    }

    fn restart(&mut self, owner: Owner) {
        self.relays[usize::from(owner) - 1].task = None;
        let wait = self.choices.below(owner, SITE_RESTART, nanos(self.workload.lease) / 2);
        self.after(Duration::from_millis(5) + Duration::from_nanos(wait), Act::Start(owner));
    }

    fn crash(&mut self, owner: Owner) {
        let Some(task) = self.relays[usize::from(owner) - 1].task.take() else { return };
        self.recorder.by(owner).note(Event::Crashed);
        let dropped = self.tasks[task as usize].take();
        drop(dropped);
        self.kernel.pause(owner, Duration::ZERO);
        self.restart(owner);
    }

    fn start(&mut self, owner: Owner) {
        let place = usize::from(owner) - 1;
        if self.relays[place].task.is_some() {
            return;
        }
        let recorder = self.recorder.by(owner);
        recorder.note(Event::Started);
        let stop = Arc::new(Stop::default());
        self.relays[place].stop = Arc::clone(&stop);
        let weather = Arc::clone(&self.relays[place].weather);
        let plan = || WorldPlan {
            seeded: SeededPlan::new(self.choices.clone(), owner, self.rates)
                .patience(self.workload.lease * 3),
            choices: self.choices.clone(),
            kernel: Arc::clone(&self.kernel),
            owner,
            weather: Arc::clone(&weather),
            recorder: recorder.clone(),
        };
        let around = || Around { kernel: Arc::clone(&self.kernel), owner, recorder: recorder.clone() };
        let recorded = RecordedStorage::new(self.storage.clone(), recorder.clone());
        let storage = self.subject.relay_storage(FaultyStorage::new(recorded, plan(), around()));
        let link = Link {
            broker: Arc::clone(&self.broker),
            recorder: recorder.clone(),
            kernel: Arc::clone(&self.kernel),
            owner,
        };
        let faulty = FaultyTransport::new(link, plan(), around());
        let watched = Watched { inner: faulty, recorder: recorder.clone(), weather: Arc::clone(&weather) };
        let transport = self.subject.relay_transport(watched);
        let timer = VirtualTimer { kernel: Arc::clone(&self.kernel), owner };
        let mut random = Random::new(self.choices.word(owner, SITE_RANDOM));
        let relay = Relay::new(storage, transport, self.workload.config.clone())
            .expect("the settings hold against each other")
            .timer(timer)
            .randomness(move || random.draw());
        let task = self.add(Box::pin(relay.run(stop.asked())), owner);
        self.relays[place].task = Some(task);
    }

    /// Answers whether the run is over.
    fn act(&mut self, act: Act) -> bool {
        match act {
            Act::Begin(number) => self.begin(number),
            Act::End(number) => self.end(number),
            Act::Start(owner) => self.start(owner),
            Act::Crash(owner) => self.crash(owner),
            Act::Stop(owner) => self.relays[usize::from(owner) - 1].stop.ask(),
            Act::Jump(owner, by) => {
                self.recorder.by(owner).note(Event::ClockJumped { micros: micros(by) });
                self.kernel.jump(owner, by);
            }
            Act::JumpStore(by) => {
                self.recorder.note(Event::ClockJumped { micros: micros(by) });
                self.kernel.jump_store(by);
            }
            Act::Cut(owner, side, long) => {
                let event = Event::Partitioned { from_store: side == Side::Store, micros: micros(long) };
                self.recorder.by(owner).note(event);
                let until = self.kernel.now() + nanos(long);
                self.relays[usize::from(owner) - 1].weather.cut(side, until);
            }
            Act::Slow(long) => {
                self.recorder.note(Event::Slowed { micros: micros(long) });
                let until = self.kernel.now() + nanos(long);
                self.relays.iter().for_each(|relay| relay.weather.slow_down(until));
            }
            Act::Operate => self.operate(),
            Act::Heal => self.heal(),
            Act::Look => return self.look(),
        }
        false
    }

    fn begin(&mut self, number: u32) {
        let mut transaction = self.subject.begin(&self.storage);
        let plan = &self.workload.plans[number as usize];
        for message in &plan.messages {
            self.recorder.note(Event::Enqueued { transaction: number, message: *message });
            let planned = &self.workload.messages[*message as usize].message;
            self.subject.enqueue(&mut transaction, std::slice::from_ref(planned));
        }
        self.transactions[number as usize] = Some(transaction);
    }

    fn end(&mut self, number: u32) {
        let Some(transaction) = self.transactions[number as usize].take() else { return };
        self.open_transactions -= 1;
        let fate = self.workload.plans[number as usize].fate;
        if fate == Fate::RollsBack {
            self.recorder.note(Event::RolledBack { transaction: number });
            self.subject.rollback(transaction);
            return;
        }
        self.recorder.note(Event::CommitBegan { transaction: number });
        if fate == Fate::LostUnseen {
            self.subject.rollback(transaction);
        } else {
            self.subject.commit(transaction);
        }
        self.recorder.note(Event::CommitEnded { transaction: number, acknowledged: fate == Fate::Commits });
    }

    /// The operator looks after the dead letters, and purges.
    fn operate(&mut self) {
        let discards = self.healed_at.is_some();
        let look = self.subject.look(&self.storage);
        let Some(admin) = self.storage.admin() else { return };
        for id in look.dead {
            let Some(message) = self.recorder.number(id) else { continue };
            if discards {
                self.recorder.note(Event::Discarded { message });
                at_once(admin.discard(Filter::id(id), 1, false));
            } else if self.choices.below(WORLD, SITE_OPERATE, 2) == 1 {
                self.recorder.note(Event::Redriven { message });
                at_once::<Affected>(admin.redrive(Filter::id(id), 1, false));
            }
        }
        self.purge(admin);
    }

    fn purge(&self, admin: &dyn Admin) {
        if let Some(count) = at_once(admin.purge_published(self.workload.lease, 1_000)) {
            self.recorder.note(Event::Purged { count });
        }
    }

    fn heal(&mut self) {
        self.recorder.note(Event::Healed);
        self.healed_at = Some(self.kernel.now());
        self.relays.iter().for_each(|relay| relay.weather.calm_down());
        self.kernel.resume_all();
        for owner in 1..=self.simulation.relays {
            self.start(owner);
        }
        self.after(self.workload.lease / 4, Act::Look);
    }

    /// Whether everything is over: all has arrived, and then the store's clock went far past every lease.
    fn look(&mut self) -> bool {
        let now = self.kernel.now();
        if self.drained_at.is_some() {
            return true;
        }
        let since_healed = now - self.healed_at.unwrap_or(now);
        if since_healed > nanos(self.simulation.heal_within) {
            return true;
        }
        // A dead head that blocks its key for ever is somebody's to decide about.
        if self.workload.terms.head_policy == HeadPolicy::Block {
            self.operate();
        }
        let is_quiet = self.late == 0 && self.open_transactions == 0;
        if is_quiet && self.subject.look(&self.storage).remaining == 0 {
            self.drained_at = Some(now);
            self.kernel.jump_store(self.workload.lease * 100);
            self.after(self.workload.lease / 2, Act::Look);
        } else {
            self.after(self.workload.lease / 4, Act::Look);
        }
        false
    }
}

/// Asks a relay to stop.
#[derive(Default)]
struct Stop(Mutex<(bool, Option<Waker>)>);

impl Stop {
    fn ask(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn was_asked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn asked(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        std::future::poll_fn(move |context| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 {
                return Poll::Ready(());
            }
            if !state.1.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.1 = Some(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

/// The answer of a store that answers at once; one that does not has no operator here.
fn at_once<V>(mut call: BoxFuture<'_, Result<V, Error>>) -> Option<V> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => Some(value),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
