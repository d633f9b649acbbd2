//! What the threads of a proxy share: which faults are on, and which connections are open.

use std::collections::{HashMap, HashSet};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Requests,
    Replies,
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Each<T> {
    pub(super) requests: T,
    pub(super) replies: T,
}

impl<T> Each<T> {
    fn of(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Requests => &mut self.requests,
            Direction::Replies => &mut self.replies,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    is_listening: bool,
    is_stalled: Each<bool>,
    /// Once so many bytes of requests were forwarded, the rest is held back.
    passing: Option<u64>,
    delay: Duration,
    /// The sockets of each open connection. One that is not here was cut, and its threads are about to end.
    pub(super) connections: HashMap<u64, Vec<TcpStream>>,
    /// Those whose server is gone without the client's knowledge. They carry nothing any more, and end by a cut.
    half_open: HashSet<u64>,
    pub(super) accepted: u64,
    pub(super) forwarded: Each<u64>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(target: SocketAddr) -> Self {
        Self { target, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn set_listening(&self, is_listening: bool) {
        self.change(|state| state.is_listening = is_listening);
    }

    pub(super) fn is_listening(&self) -> bool {
        self.lock().is_listening
    }

    pub(super) fn set_stall(&self, requests: bool, replies: bool) {
        self.change(|state| {
            state.is_stalled = Each { requests, replies };
            state.passing = None;
        });
    }

    pub(super) fn stall_requests_after(&self, bytes: u64) {
        self.change(|state| state.passing = Some(state.forwarded.requests + bytes));
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    pub(super) fn cut(&self) {
        self.change(|state| {
            state.half_open.clear();
            state.connections.drain().for_each(|(_, sockets)| shut(&sockets));
        });
    }

    pub(super) fn half_open(&self) {
        self.change(|state| {
            state.half_open.extend(state.connections.keys());
            // The client's side is the first of the two.
            state.connections.values().for_each(|sockets| shut(sockets.get(1..).unwrap_or_default()));
        });
    }

    /// Takes in a client, and gives the connection's number; nothing if the proxy refuses by now.
    pub(super) fn admit(&self, client: TcpStream) -> Option<u64> {
        let mut state = self.lock();
        if !state.is_listening {
            return None;
        }
        state.accepted += 1;
        let number = state.accepted;
        state.connections.insert(number, vec![client]);
        Some(number)
    }

    /// Adds the server's side to a connection, so that a cut reaches both; false if it was cut or left half open already.
    pub(super) fn join(&self, number: u64, server: TcpStream) -> bool {
        let mut state = self.lock();
        if state.half_open.contains(&number) {
            return false;
        }
        let sockets = state.connections.get_mut(&number);
        sockets.map(|sockets| sockets.push(server)).is_some()
    }

    /// Ends one connection on both sides, unless its client is not to know.
    pub(super) fn end(&self, number: u64) {
        self.change(|state| {
            if !state.half_open.contains(&number) {
                state.connections.remove(&number).iter().for_each(|sockets| shut(sockets));
            }
        });
    }

    /// Waits until what arrived at `arrival` may go on; false if the connection was cut before.
    pub(super) fn wait_for_passage(&self, number: u64, direction: Direction, arrival: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if !state.connections.contains_key(&number) {
                return false;
            }
            let left = (arrival + state.delay).saturating_duration_since(Instant::now());
            let has_passed = state.passing.is_some_and(|most| state.forwarded.requests >= most);
            let is_stalled = *state.is_stalled.of(direction)
                || (has_passed && direction == Direction::Requests)
                || state.half_open.contains(&number);
            if !is_stalled && left.is_zero() {
                return true;
            }
            // A stall ends by a change only; an hour stands for no limit.
            let longest = if is_stalled { Duration::from_secs(3600) } else { left };
            state = self.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn count(&self, direction: Direction, bytes: usize) {
        *self.lock().forwarded.of(direction) += bytes as u64;
    }
}

fn shut(sockets: &[TcpStream]) {
    for socket in sockets {
        // Fails only if the other side has ended it before.
        let _ = socket.shutdown(Shutdown::Both);
    }
}
