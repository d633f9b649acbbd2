use std::fmt;
use std::net::Ipv4Addr;

use crate::servers::port::{free_port, on_free_ports};
use crate::servers::{ChildServer, Launch, ServerError, ServerFolder, find_program};

use super::{PATIENCE, RedisServer, is_up};

/// What a [`RedisServer`] is started with.
#[derive(Clone, Default)]
pub struct RedisOptions {
    append_only: bool,
    password: Option<String>,
    replica_of: Option<u16>,
    arguments: Vec<String>,
}

impl RedisOptions {
    /// Writes each change to an append-only file, with `appendfsync always`, before it is answered. Off by default, because
    /// most tests never restart their server.
    #[must_use]
    pub fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// Asks clients for this password, and uses it towards a primary. None by default.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Starts as a replica, with the password of `primary`, and waits until it has its data.
    #[must_use]
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        self.replica_of = Some(primary.port);
        self.password.clone_from(&primary.password);
        self
    }

    /// Adds an argument of `redis-server`, such as `--maxmemory` and its value. Arguments come last, so they win.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub fn start(&self) -> Result<RedisServer, ServerError> {
        on_free_ports(|| self.start_once(&[]))
    }

    pub(super) fn start_once(&self, more: &[String]) -> Result<RedisServer, ServerError> {
        let program = find_program("redis-server", &[])?;
        let folder = ServerFolder::create("redis")?;
        let port = free_port()?;
        let launch = Launch::new("redis", program, folder.path())
            .arguments(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .arguments(self.words(more))
            .patience(PATIENCE);
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let password = self.password.clone();
        let process =
            ChildServer::start(launch, move |process| is_up(address, password.as_deref(), process))?;
        let server = RedisServer { process, port, password: self.password.clone(), folder };
        // Asked once and not at a restart, when the primary may be away on purpose.
        if self.replica_of.is_some() {
            server.wait_for("master_link_status:up")?;
        }
        Ok(server)
    }

    fn words(&self, more: &[String]) -> Vec<String> {
        let mut line = Vec::new();
        let mut add = |words: &[&str]| line.extend(words.iter().copied().map(str::to_owned));
        // No snapshots: they would be a second, accidental way in which data survives.
        add(&["--save", ""]);
        // By default Redis lets a replica wait five seconds for others that may come.
        add(&["--repl-diskless-sync-delay", "0"]);
        if self.append_only {
            add(&["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if let Some(password) = &self.password {
            add(&["--requirepass", password, "--masterauth", password]);
        }
        if let Some(primary) = self.replica_of {
            add(&["--replicaof", "127.0.0.1", &primary.to_string()]);
        }
        line.extend(more.iter().chain(&self.arguments).cloned());
        line
    }
}

/// The password stays out.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisOptions").field("append_only", &self.append_only).finish_non_exhaustive()
    }
}
