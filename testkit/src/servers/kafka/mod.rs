//! A broker that speaks Kafka's protocol.

mod objects;
mod options;
mod ready;

pub use options::KafkaOptions;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::unprivileged::prepare;
use super::{ChildServer, Proxy, ServerError, ServerFolder};
use objects::ObjectStore;

/// A broker that speaks Kafka's protocol, of one test: Tansu 0.6, up in less than 100 milliseconds.
///
/// It keeps nothing itself: its objects lie in a store in this process, so that what it has confirmed outlives a kill. It creates no
/// topics by itself.
pub struct KafkaServer {
    process: ChildServer,
    program: PathBuf,
    address: SocketAddr,
    proxy: Option<Proxy>,
    /// After the process, which writes into both.
    objects: Option<ObjectStore>,
    folder: ServerFolder,
}

impl KafkaServer {
    /// Starts a broker that lets everybody in.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`](super::ServerErrorKind::Missing), `NotReady` or `System`.
    pub fn start() -> Result<Self, ServerError> {
        Self::options().start()
    }

    /// What it may have beyond that.
    pub fn options() -> KafkaOptions {
        KafkaOptions::default()
    }

    /// Its URL: `kafka://127.0.0.1:PORT`, through its [proxy](KafkaOptions::behind_proxy) if it has one. Our options can be
    /// appended: `?transport.confirm_timeout=1s`.
    pub fn url(&self) -> String {
        format!("kafka://{}", self.address())
    }

    /// Where clients connect, and what the broker tells them to connect to: the proxy's address if it has one.
    pub fn address(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.address, Proxy::address)
    }

    /// The proxy in front of it.
    ///
    /// # Panics
    ///
    /// If it was started without one: a broker tells its clients where to connect, so that none can be put there later.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("this broker was started without `behind_proxy`")
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Refused`](super::ServerErrorKind::Refused).
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), ServerError> {
        self.command(&["topic", "create", name, "--partitions", &partitions.to_string()])
    }

    /// Deletes a topic with all that it holds.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Refused`](super::ServerErrorKind::Refused).
    pub fn delete_topic(&self, name: &str) -> Result<(), ServerError> {
        self.command(&["topic", "delete", name])
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

    /// Kills it if it runs, and starts it again on the same port, with all that it had confirmed unless it keeps that
    /// [in memory](KafkaOptions::in_memory).
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

    /// The folder with its log.
    pub fn folder(&self) -> &ServerFolder {
        &self.folder
    }

    /// Runs the broker's own program against it, past the proxy.
    fn command(&self, words: &[&str]) -> Result<(), ServerError> {
        let mut command = std::process::Command::new(&self.program);
        command.current_dir(self.folder.path()).args(words);
        command.args(["--broker", &format!("tcp://{}", self.address)]);
        prepare(command, "tansu")
    }
}

impl fmt::Debug for KafkaServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaServer")
            .field("address", &self.address())
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}
