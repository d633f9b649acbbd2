use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::port::on_free_ports;
use super::{ChildServer, Launch, ServerError, ServerFolder, find_program, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// A NATS server with JetStream of one test: `nats-server` 2.9 or later, up in less than 100 milliseconds.
///
/// Its streams lie in a folder of its own and outlive a kill. Tests that need nothing else can share one and use streams of
/// different subjects.
pub struct NatsServer {
    process: ChildServer,
    port: u16,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl NatsServer {
    /// Starts a server that lets everybody in.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`](super::ServerErrorKind::Missing), `NotReady` or `System`.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with("")
    }

    /// Starts a server with more lines of its settings file, such as `max_payload: 65536` or `authorization { … }`. JetStream is
    /// on unless they say `jetstream: disabled`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(settings: &str) -> Result<Self, ServerError> {
        on_free_ports(|| Self::start_once(settings))
    }

    fn start_once(settings: &str) -> Result<Self, ServerError> {
        let program = find_program("nats-server", &["/usr/sbin/nats-server"])?;
        let folder = ServerFolder::create("nats")?;
        let port = free_port()?;
        // Whoever answers on the port tells its name, so that no other server is taken for this one.
        let name = format!("pillarbox-{}-{port}", std::process::id());
        let mut content = format!("listen: \"127.0.0.1:{port}\"\nserver_name: \"{name}\"\n{settings}\n");
        if !settings.contains("jetstream") {
            content.push_str("jetstream { store_dir: \"data\" }\n");
        }
        folder.write("nats.conf", &content)?;
        let launch =
            Launch::new("nats", program, folder.path()).arguments(["-c", "nats.conf"]).patience(PATIENCE);
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let process = ChildServer::start(launch, move |_| is_up(address, &name))?;
        Ok(Self { process, port, folder })
    }

    /// Its URL, without a login: `nats://127.0.0.1:PORT/`. Our options can be appended: `?transport.stream=ORDERS`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}/", self.port)
    }

    /// Its address, for a [`Proxy`](super::Proxy) or a client that takes no URL.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Sends SIGKILL, and waits for its end.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Stops it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn pause(&self) -> Result<(), ServerError> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn resume(&self) -> Result<(), ServerError> {
        self.process.resume()
    }

    /// Kills it if it runs, and starts it again on the same port with the same data folder.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), ServerError> {
        self.process.restart()
    }

    /// The process itself: its id and its log.
    pub fn process(&self) -> &ChildServer {
        &self.process
    }

    /// The folder with its data.
    pub fn folder(&self) -> &ServerFolder {
        &self.folder
    }
}

/// The settings stay out: a password may be among them.
impl fmt::Debug for NatsServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NatsServer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether the server of this name answers. It recovers its streams before it listens.
fn is_up(address: SocketAddr, name: &str) -> Result<(), String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|error| error.to_string())?;
    let mut greeting = String::new();
    BufReader::new(stream).read_line(&mut greeting).map_err(|error| error.to_string())?;
    let names_itself = greeting.contains(&format!("\"server_name\":\"{name}\""));
    names_itself.then_some(()).ok_or_else(|| "another server answers on its port".to_owned())
}
