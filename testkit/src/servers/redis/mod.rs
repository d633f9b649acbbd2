mod cluster;
mod options;
mod sentinel;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub use cluster::RedisCluster;
pub use options::RedisOptions;
pub use sentinel::RedisSentinels;

use super::wait::poll;
use super::{ChildServer, ServerError, ServerErrorKind, ServerFolder};

const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server of one test: `redis-server` 7 or later, up in less than 20 milliseconds.
///
/// By default it keeps its data in memory only and has no password. Tests that need nothing else can share one and use
/// outboxes of different names.
pub struct RedisServer {
    process: ChildServer,
    port: u16,
    password: Option<String>,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl RedisServer {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`], [`ServerErrorKind::NotReady`] or [`ServerErrorKind::System`].
    pub fn start() -> Result<Self, ServerError> {
        Self::options().start()
    }

    /// Options to choose from before the [`start`](RedisOptions::start).
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// Its URL, with the password if it has one: `redis://127.0.0.1:PORT/`. Our options can be appended: `?outbox.name=orders`.
    pub fn url(&self) -> String {
        let user = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}127.0.0.1:{}/", self.port)
    }

    /// Its address, for a [`Proxy`](super::Proxy) or a client that takes no URL.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Sends one command on a connection of its own, and gives the reply as text: an array as one line per element, nil as nothing.
    ///
    /// For `CONFIG SET`, `REPLICAOF`, `CLIENT KILL` and the like; a test of messages uses a real client.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Refused`], when Redis answers with an error, and [`ServerErrorKind::NotRunning`], when it does not answer.
    pub fn command(&self, words: &[&str]) -> Result<String, ServerError> {
        wire::call(self.address(), self.password.as_deref(), words)
    }

    /// Sends SIGKILL, and waits for its end. What was not written to the append-only file is lost.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Stops it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`].
    pub fn pause(&self) -> Result<(), ServerError> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`].
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

    /// Waits until a line of its `INFO` is `fact`, such as `connected_slaves:2`, for at most a minute.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotReady`].
    pub fn wait_for(&self, fact: &str) -> Result<(), ServerError> {
        let outcome = poll(PATIENCE, || {
            let facts = self.command(&["INFO", "everything"]).map_err(|error| error.to_string())?;
            says(&facts, fact)
        });
        outcome.map_err(|reason| ServerError::new(ServerErrorKind::NotReady, format!("redis: {reason}")))
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

/// The password stays out.
impl fmt::Debug for RedisServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisServer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether the server with this very process id answers, and has loaded its data.
fn is_up(address: SocketAddr, password: Option<&str>, process: u32) -> Result<(), String> {
    let facts = wire::call(address, password, &["INFO"]).map_err(|error| error.to_string())?;
    // A sentinel has nothing to load, and does not mention it.
    let is_loading = says(&facts, "loading:1").is_ok();
    if is_loading {
        Err("it is loading its data".to_owned())
    } else {
        says(&facts, &format!("process_id:{process}"))
    }
}

/// Whether one line of `INFO` is `fact`.
fn says(facts: &str, fact: &str) -> Result<(), String> {
    let found = facts.lines().any(|line| line == fact);
    found.then_some(()).ok_or_else(|| format!("its INFO does not say `{fact}`"))
}
