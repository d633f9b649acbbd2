use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::port::{free_port, on_free_ports};
use super::unprivileged::{Account, prepare};
use super::wait::poll;
use super::{ChildServer, ServerError, ServerErrorKind, ServerFolder, find_program};

/// Where Debian keeps the programs of each version, newest first.
const DEBIAN: &str = "/usr/lib/postgresql";
/// One second when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A PostgreSQL server of one test, up in about three seconds, with the superuser `postgres` and no password.
///
/// It runs with `fsync` off: a server that is killed loses nothing then, only a machine that loses its power does. Tests that need
/// nothing else can share one and use outboxes of different names.
pub struct PostgresServer {
    process: ChildServer,
    port: u16,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl PostgresServer {
    /// Makes an empty database cluster and starts its server.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`], [`ServerErrorKind::NotReady`] or [`ServerErrorKind::System`].
    pub fn start() -> Result<Self, ServerError> {
        on_free_ports(Self::start_once)
    }

    fn start_once() -> Result<Self, ServerError> {
        let account = Account::choose(&["postgres", "nobody"])?;
        let folder = ServerFolder::create("postgres")?;
        let data = account.folder(folder.path(), "data")?;
        let mut command = account.command(&program("initdb")?);
        command.current_dir(&data).arg("-D").arg(&data);
        command.args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        prepare(command, "initdb")?;
        let port = free_port()?;
        let launch = account
            .launch("postgres", &program("postgres")?, folder.path())
            .arguments(["-D".into(), data.clone().into_os_string()])
            .arguments(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .arguments(["-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB"])
            .patience(PATIENCE);
        let process = ChildServer::start(launch, move |process| is_up(&data, process))?;
        Ok(Self { process, port, folder })
    }

    /// The URL of its database `postgres`. Our options can be appended: `?outbox.name=orders`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Its address, for a [`Proxy`](super::Proxy) or a client that takes no URL.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Sends SIGKILL to the server. Its sessions end by themselves as soon as they notice.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Kills it if it runs, and starts it again on the same port with the same data.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), ServerError> {
        self.process.kill();
        // Sessions of the killed server are processes of their own, and hold its shared memory until they have ended.
        let outcome = poll(PATIENCE, || self.process.restart().map_err(|error| error.to_string()));
        outcome.map_err(|reason| ServerError::new(ServerErrorKind::NotReady, reason))
    }

    /// Stops the process that accepts connections with SIGSTOP; sessions that are open go on.
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

    /// The process itself: its id and its log.
    pub fn process(&self) -> &ChildServer {
        &self.process
    }

    /// The folder with its data.
    pub fn folder(&self) -> &ServerFolder {
        &self.folder
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresServer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether the server with this very process id takes connections: its lock file says so.
fn is_up(data: &Path, process: u32) -> Result<(), String> {
    let lock = fs::read_to_string(data.join("postmaster.pid")).map_err(|error| error.to_string())?;
    let mut lines = lock.lines();
    if lines.next() != Some(process.to_string().as_str()) {
        return Err("its lock file names another process".to_owned());
    }
    match lines.nth(6).map(str::trim) {
        Some("ready") => Ok(()),
        status => Err(format!("its lock file says {status:?}")),
    }
}

/// A program of PostgreSQL. Debian has only the client's on `PATH`.
fn program(name: &str) -> Result<std::path::PathBuf, ServerError> {
    let mut versions: Vec<_> = fs::read_dir(DEBIAN)
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.sort();
    let newest = versions.last().map(|path| path.display().to_string());
    find_program(name, newest.as_deref().as_slice())
}
