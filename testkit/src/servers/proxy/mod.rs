//! A network that can be broken: a proxy between a client and a server.
//!
//! ```text
//!   client ──requests──▶ proxy ──▶ server       stall, stall_replies, stall_requests_after: bytes wait, connections stay
//!          ◀──replies───       ◀──              delay: each chunk arrives later
//!                                               cut: connections end, new ones are welcome
//!                                               refuse: connections end, new ones are refused
//! ```

mod pump;
mod state;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::port::{free_port, on_free_ports};
use super::{ServerError, ServerErrorKind};
use state::Shared;

/// A TCP proxy on 127.0.0.1 whose connections can be broken in the ways in which networks break.
///
/// It has threads of its own, so that it works beside any runtime and while a test blocks. Dropping it ends its connections.
///
/// The proxy accepts first and connects to the server after that: while the server is down, a client is accepted and its
/// connection ends at once. For a client that is to be refused there is [`refuse`](Self::refuse).
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// A proxy that forwards to `target`, healthy at first.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::System`], when there is no free port.
    pub fn start(target: SocketAddr) -> Result<Self, ServerError> {
        on_free_ports(|| {
            let address = (Ipv4Addr::LOCALHOST, free_port()?).into();
            let proxy = Self { address, shared: Arc::new(Shared::new(target)), acceptor: Mutex::new(None) };
            proxy.listen()?;
            Ok(proxy)
        })
    }

    /// Where clients connect. It stays the same, whatever happens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with the server's address replaced by the proxy's.
    ///
    /// # Panics
    ///
    /// If `url` does not contain the address of the server: the client would go around the proxy, and a test of faults
    /// would pass without any.
    pub fn through(&self, url: &str) -> String {
        let target = self.shared.target.to_string();
        assert!(url.contains(&target), "this proxy leads to {target}, which the URL does not name");
        url.replacen(&target, &self.address.to_string(), 1)
    }

    /// Ends all connections, as a server does that is killed: both sides see the end, bytes on the way are lost. New connections are accepted.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Ends all connections and refuses new ones, as a machine on which nothing listens.
    pub fn refuse(&self) {
        let mut acceptor = self.acceptor();
        if let Some(thread) = acceptor.take() {
            self.shared.set_listening(false);
            // Wakes the thread, which waits for a connection; then it drops the listener. If that fails, it is awake already.
            let _ = TcpStream::connect(self.address);
            // It does not panic, and if it did, the listener would be gone too.
            let _ = thread.join();
        }
        self.shared.cut();
    }

    /// Accepts and forwards nothing, in both directions, not even the end of a connection: as when a cable is unplugged.
    /// What is sent meanwhile arrives after [`heal`](Self::heal), or never if [`cut`](Self::cut) comes first.
    ///
    /// Bytes that are being written at this moment may still pass; what is sent after the return does not.
    pub fn stall(&self) {
        self.shared.set_stall(true, true);
    }

    /// Forwards requests and holds replies back. Followed by a [`cut`](Self::cut), the server has done what the client will never know.
    pub fn stall_replies(&self) {
        self.shared.set_stall(false, true);
    }

    /// Forwards so many more bytes of requests, and at most a chunk of 16 KiB beyond, then holds back what follows. What the server answers
    /// arrives. Followed by the server's death, that death is in the middle of what was being sent, on however slow a machine.
    pub fn stall_requests_after(&self, bytes: u64) {
        self.shared.stall_requests_after(bytes);
    }

    /// Leaves all connections half open: the server sees their end, the clients see nothing, whatever they send and however long
    /// they wait, as when a machine loses its power or a firewall forgets a connection. New connections work. The half-open ones
    /// stay so until a [`cut`](Self::cut), also after [`heal`](Self::heal).
    pub fn half_open(&self) {
        self.shared.half_open();
    }

    /// Lets every chunk arrive `delay` after it was sent, in each direction. Does not narrow the bandwidth.
    pub fn delay(&self, delay: Duration) {
        self.shared.set_delay(delay);
    }

    /// Ends every fault: listens, forwards at once, and delivers what was held back. Connections that were cut stay so.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::PortTaken`], when something else took the port while it refused.
    pub fn heal(&self) -> Result<(), ServerError> {
        self.shared.set_stall(false, false);
        self.shared.set_delay(Duration::ZERO);
        self.listen()
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many connections were accepted since the start.
    pub fn accepted_connections(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many bytes of requests the server was sent. A test that loses a reply waits until this has grown.
    pub fn request_bytes(&self) -> u64 {
        self.shared.lock().forwarded.requests
    }

    /// How many bytes of replies the clients were sent.
    pub fn reply_bytes(&self) -> u64 {
        self.shared.lock().forwarded.replies
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) -> Result<(), ServerError> {
        let mut acceptor = self.acceptor();
        if acceptor.is_none() {
            let listener = TcpListener::bind(self.address).map_err(|cause| {
                let message = format!("the proxy cannot listen on {}: {cause}", self.address);
                ServerError::new(ServerErrorKind::PortTaken, message)
            })?;
            self.shared.set_listening(true);
            let shared = Arc::clone(&self.shared);
            *acceptor = Some(thread::spawn(move || pump::accept(&listener, &shared)));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, target) = (self.address, self.shared.target);
        formatter
            .debug_struct("Proxy")
            .field("address", &address)
            .field("target", &target)
            .finish_non_exhaustive()
    }
}
