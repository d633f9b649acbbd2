//! Virtual time, and who is to be polled: the simulator's executor without the futures themselves.

use pillarbox_core::{BoxFuture, Moment, Timestamp};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Who a sleep belongs to: a relay's number from 1, or the world.
pub(super) type Owner = u16;
pub(super) const WORLD: Owner = 0;

/// Where the store's clock starts: in the middle of 2026, since a store that can't tell is no store to test.
const STORE_START: i64 = crate::history::CREATED.as_micros();

/// The world's clock and its queues. Everything in a simulation shares one.
pub(super) struct Kernel {
    /// Nanoseconds since the beginning.
    now: AtomicU64,
    /// Microseconds by which the store's clock is ahead of the world's.
    store_ahead: AtomicU64,
    /// Nanoseconds by which each owner's clock is ahead of the world's.
    ahead: Vec<AtomicU64>,
    paused_until: Vec<AtomicU64>,
    has_requests: AtomicBool,
    ready: Arc<Mutex<VecDeque<u32>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    timeline: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    sequence: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    spawned: Vec<BoxFuture<'static, ()>>,
    killed: Vec<Owner>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Timer { slot: u32, generation: u32 },
    Resume { task: u32 },
    Act { number: u32 },
}

#[derive(Default)]
struct Slot {
    generation: u32,
    owner: Owner,
    waker: Option<Waker>,
}

/// What is next on the timeline.
pub(super) enum Due {
    /// An act of the world's, by the number that it was scheduled with.
    Act(u32),
    /// Somebody was woken.
    Woken,
    /// Nothing will ever happen again.
    Never,
}

impl Kernel {
    pub(super) fn new(relays: u16) -> Arc<Self> {
        let each_owner = || (0..=relays).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            now: AtomicU64::new(0),
            store_ahead: AtomicU64::new(0),
            ahead: each_owner(),
            paused_until: each_owner(),
            has_requests: AtomicBool::new(false),
            ready: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The time of the store's own clock.
    pub(super) fn store_time(&self) -> Timestamp {
        let micros = self.now() / 1_000 + self.store_ahead.load(Ordering::Relaxed);
        Timestamp::from_micros(STORE_START + i64::try_from(micros).unwrap_or(i64::MAX))
    }

    pub(super) fn jump_store(&self, by: Duration) {
        self.store_ahead.fetch_add(u64::try_from(by.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    /// The time of a relay's own clock.
    pub(super) fn moment(&self, owner: Owner) -> Moment {
        Moment::from_nanos(self.now() + self.ahead(owner))
    }

    fn ahead(&self, owner: Owner) -> u64 {
        self.ahead[usize::from(owner)].load(Ordering::Relaxed)
    }

    /// Sets an owner's clock ahead, and wakes whoever slept by it.
    pub(super) fn jump(&self, owner: Owner, by: Duration) {
        self.ahead[usize::from(owner)].fetch_add(nanos(by), Ordering::Relaxed);
        let mut state = self.state();
        let sleepers = state.slots.iter_mut().filter(|slot| slot.owner == owner);
        let wakers: Vec<Waker> = sleepers.filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Stops an owner's tasks: they are polled again after `duration`.
    pub(super) fn pause(&self, owner: Owner, duration: Duration) {
        let until = self.now() + nanos(duration);
        self.paused_until[usize::from(owner)].store(until, Ordering::Relaxed);
    }

    /// Lets every owner run.
    pub(super) fn resume_all(&self) {
        self.paused_until.iter().for_each(|until| until.store(0, Ordering::Relaxed));
    }

    /// Until when an owner stands still, if it does.
    pub(super) fn paused(&self, owner: Owner) -> Option<u64> {
        let until = self.paused_until[usize::from(owner)].load(Ordering::Relaxed);
        (until > self.now()).then_some(until)
    }

    /// Asks that a relay is dropped before anything else happens.
    pub(super) fn kill(&self, owner: Owner) {
        self.state().killed.push(owner);
        self.has_requests.store(true, Ordering::Relaxed);
    }

    /// Whether somebody is to be killed or spawned. Once told, it is not told again.
    pub(super) fn take_requests(&self) -> bool {
        self.has_requests.load(Ordering::Relaxed) && self.has_requests.swap(false, Ordering::Relaxed)
    }

    pub(super) fn take_killed(&self) -> Option<Owner> {
        self.state().killed.pop()
    }

    /// Runs a future beside the others, to its end.
    pub(super) fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.state().spawned.push(future);
        self.has_requests.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_spawned(&self) -> Option<BoxFuture<'static, ()>> {
        self.state().spawned.pop()
    }

    /// A waker for the task of this number, which is queued at once.
    pub(super) fn waker(&self, task: u32) -> Arc<TaskWaker> {
        let waker =
            Arc::new(TaskWaker { task, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        waker.wake_by_ref();
        waker
    }

    /// A task to be polled: of several the one that `choose` picks by its place.
    pub(super) fn take_ready(&self, choose: impl FnOnce(usize) -> usize) -> Option<u32> {
        let mut ready = lock(&self.ready);
        let place = if ready.len() > 1 { choose(ready.len()) } else { 0 };
        ready.remove(place)
    }

    /// Puts a task back until `at`.
    pub(super) fn resume_at(&self, task: u32, at: u64) {
        self.state().schedule(at, Entry::Resume { task });
    }

    /// Puts an act of the world's on the timeline.
    pub(super) fn act_at(&self, at: u64, number: u32) {
        let at = at.max(self.now());
        self.state().schedule(at, Entry::Act { number });
    }

    /// Moves time on to the next entry.
    pub(super) fn advance(&self) -> Due {
        loop {
            let mut state = self.state();
            let Some(Reverse((at, _, entry))) = state.timeline.pop() else { return Due::Never };
            let waker = match entry {
                Entry::Act { number } => {
                    self.set_now(at);
                    return Due::Act(number);
                }
                Entry::Resume { task } => {
                    self.set_now(at);
                    lock(&self.ready).push_back(task);
                    return Due::Woken;
                }
                Entry::Timer { slot, generation } => {
                    let slot = &mut state.slots[slot as usize];
                    if slot.generation == generation { slot.waker.take() } else { None }
                }
            };
            drop(state);
            // A timer whose sleeper is gone moves nothing, not even time.
            if let Some(waker) = waker {
                self.set_now(at);
                waker.wake();
                return Due::Woken;
            }
        }
    }

    fn set_now(&self, at: u64) {
        self.now.fetch_max(at, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn schedule(&mut self, at: u64, entry: Entry) {
        self.sequence += 1;
        self.timeline.push(Reverse((at, self.sequence, entry)));
    }

    fn release(&mut self, slot: u32) -> Option<Waker> {
        self.free.push(slot);
        let slot = &mut self.slots[slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.waker.take()
    }
}

/// Queues its task once, however often it is woken before it is polled.
pub(super) struct TaskWaker {
    task: u32,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<u32>>>,
}

impl TaskWaker {
    /// The task is polled now: from here on it can be woken again.
    pub(super) fn taken(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push_back(self.task);
        }
    }
}

/// Completes when its owner's clock has reached a time.
pub(super) struct Sleep {
    kernel: Arc<Kernel>,
    owner: Owner,
    /// On the owner's clock.
    until: u64,
    /// The slot of the timer, its generation, and when it fires on the world's clock.
    timer: Option<(u32, u32, u64)>,
}

impl Sleep {
    pub(super) const fn new(kernel: Arc<Kernel>, owner: Owner, until: u64) -> Self {
        Self { kernel, owner, until, timer: None }
    }

    pub(super) fn during(kernel: Arc<Kernel>, duration: Duration) -> Self {
        let until = kernel.now().saturating_add(nanos(duration));
        Self::new(kernel, WORLD, until)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { kernel, owner, until, timer } = &mut *self;
        let at = until.saturating_sub(kernel.ahead(*owner));
        if at <= kernel.now() {
            if let Some((slot, ..)) = timer.take() {
                kernel.state().release(slot);
            }
            return Poll::Ready(());
        }
        let mut state = kernel.state();
        if let Some((slot, _, fires)) = *timer {
            if fires == at {
                let waker = &mut state.slots[slot as usize].waker;
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            // The owner's clock has jumped.
            state.release(slot);
        }
        let slot = state.free.pop().unwrap_or_else(|| {
            state.slots.push(Slot::default());
            u32::try_from(state.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut state.slots[slot as usize];
        place.owner = *owner;
        place.waker = Some(context.waker().clone());
        let generation = place.generation;
        state.schedule(at, Entry::Timer { slot, generation });
        *timer = Some((slot, generation, at));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((slot, ..)) = self.timer {
            // The waker is dropped after the lock: it may own what sleeps.
            let waker = self.kernel.state().release(slot);
            drop(waker);
        }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
