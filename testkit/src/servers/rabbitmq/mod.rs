mod control;
mod installation;
mod launch;
mod virtual_host;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

pub use virtual_host::RabbitMqVirtualHost;

use super::port::on_free_ports;
use super::{ChildServer, ServerError, ServerFolder};
use launch::Node;

/// A RabbitMQ node of its own: `rabbitmq-server` 3.10 or later with its own `epmd`. Up in about five seconds on two cores.
///
/// Since it starts so slowly, tests that do not harm their broker take the [`shared`](Self::shared) one and a
/// [`virtual_host`](Self::virtual_host) of it.
///
/// It has the user `guest` with the password `guest`, no plugins, and listens on 127.0.0.1 only.
#[derive(Debug)]
pub struct RabbitMqNode {
    broker: ChildServer,
    /// Erlang's registry of nodes. It stays while the broker restarts, and its end comes after the broker's.
    _registry: ChildServer,
    node: Node,
    /// Virtual hosts that were made ahead.
    spare: Mutex<Vec<String>>,
    /// One `rabbitmqctl` at a time, since they share a port.
    control: Mutex<()>,
    /// Last, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

static SHARED: OnceLock<Result<RabbitMqNode, ServerError>> = OnceLock::new();

impl RabbitMqNode {
    /// Starts a node with RabbitMQ's default settings.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`](super::ServerErrorKind::Missing),
    /// [`ServerErrorKind::NotReady`](super::ServerErrorKind::NotReady) or
    /// [`ServerErrorKind::System`](super::ServerErrorKind::System).
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with("")
    }

    /// Starts a node with lines of `rabbitmq.conf`, such as `heartbeat = 1`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(settings: &str) -> Result<Self, ServerError> {
        on_free_ports(|| Self::start_once(settings))
    }

    /// The node that all tests of this process share. The first caller starts it, and others wait for it meanwhile.
    ///
    /// It is killed when this process ends. Do not kill, pause or restart it: others use it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), the same for every caller.
    pub fn shared() -> Result<&'static Self, ServerError> {
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start_once(settings: &str) -> Result<Self, ServerError> {
        let folder = ServerFolder::create("rabbitmq")?;
        let node = Node::prepare(&folder, settings)?;
        let registry_address = node.registry_address();
        let registry = ChildServer::start(node.registry(&folder)?, move |_| {
            TcpStream::connect(registry_address).map(drop).map_err(|cause| cause.to_string())
        })?;
        let (address, name) = (node.address(), node.name_before_host());
        let broker = ChildServer::start(node.broker(&folder), move |_| {
            greets_as(address, &name).map_err(|cause| cause.to_string())
        })?;
        let (spare, control) = (Mutex::default(), Mutex::default());
        Ok(Self { broker, _registry: registry, node, spare, control, folder })
    }

    /// The URL of the virtual host `/`: `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    pub fn url(&self) -> String {
        self.url_of("%2f")
    }

    fn url_of(&self, virtual_host: &str) -> String {
        format!("amqp://guest:guest@{}/{virtual_host}", self.address())
    }

    /// Its address, for a [`Proxy`](super::Proxy).
    pub fn address(&self) -> SocketAddr {
        self.node.address()
    }

    /// Sends SIGKILL, and waits for its end. Persistent messages of durable queues that were confirmed survive.
    pub fn kill(&self) {
        self.broker.kill();
    }

    /// Stops it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn pause(&self) -> Result<(), ServerError> {
        self.broker.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn resume(&self) -> Result<(), ServerError> {
        self.broker.resume()
    }

    /// Kills it if it runs, and starts it again on the same port with the same data folder.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), ServerError> {
        self.broker.restart()
    }

    /// The process of the broker: its id and its log.
    pub fn process(&self) -> &ChildServer {
        &self.broker
    }
}

/// Begins an AMQP handshake and looks for the node's name in the answer, where it stands in the name of the cluster, with the
/// machine's name behind the `@`. Any other broker on that port has another name.
fn greets_as(address: SocketAddr, name: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    // A frame begins with its type, its channel and the length of the rest.
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut greeting = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut greeting)?;
    if greeting.windows(name.len()).any(|window| window == name.as_bytes()) {
        Ok(())
    } else {
        Err(io::Error::other(format!("what answers at {address} is not the node {name}")))
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
