use std::fmt;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::port::{free_port, on_free_ports};
use super::unprivileged::{Account, prepare};
use super::{ChildServer, ServerError, ServerFolder, find_program};

/// Four seconds when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A MariaDB server of one test, up in about five seconds, with the user `root`, no password and the database `outbox`.
///
/// It never waits for the disk (`innodb_flush_log_at_trx_commit` 2, `innodb_flush_method` nosync): a server that is killed loses nothing
/// then, only a machine that loses its power does. Tests that need nothing else can share one and use outboxes of different names.
pub struct MariaDbServer {
    process: ChildServer,
    port: u16,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl MariaDbServer {
    /// Makes an empty data folder and starts its server.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`](super::ServerErrorKind::Missing), [`ServerErrorKind::NotReady`](super::ServerErrorKind::NotReady) or
    /// [`ServerErrorKind::System`](super::ServerErrorKind::System).
    pub fn start() -> Result<Self, ServerError> {
        on_free_ports(Self::start_once)
    }

    fn start_once() -> Result<Self, ServerError> {
        let account = Account::choose(&["mysql", "nobody"])?;
        let folder = ServerFolder::create("mariadb")?;
        let own = account.folder(folder.path(), "own")?;
        let mut command = account.command(&find_program("mariadb-install-db", &[])?);
        command.current_dir(&own).args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        command.arg(format!("--datadir={}", own.join("data").display()));
        prepare(command, "mariadb-install-db")?;
        folder.write("start.sql", "CREATE DATABASE IF NOT EXISTS outbox CHARACTER SET utf8mb4;\n")?;
        let server = find_program("mariadbd", &["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd"])?;
        let port = free_port()?;
        let file = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let launch = account
            .launch("mariadb", &server, folder.path())
            .arguments(["--no-defaults", "--bind-address=127.0.0.1", &format!("--port={port}")])
            .arguments([file("datadir", &own.join("data")), file("socket", &own.join("socket"))])
            .arguments([
                file("pid-file", &own.join("pid")),
                file("init-file", &folder.path().join("start.sql")),
            ])
            .arguments([
                "--innodb-flush-log-at-trx-commit=2",
                // Every table that a test makes would wait for the disk again and again.
                "--innodb-flush-method=nosync",
                "--innodb-stats-persistent=0",
                "--innodb-buffer-pool-size=64M",
                "--max-connections=200",
            ])
            .arguments(["--max-allowed-packet=64M", "--skip-name-resolve"])
            .patience(PATIENCE);
        let pid = own.join("pid");
        let process = ChildServer::start(launch, move |process| is_up(&pid, port, process))?;
        Ok(Self { process, port, folder })
    }

    /// The URL of its database `outbox`. Our options can be appended: `?outbox.name=orders`.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/outbox", self.port)
    }

    /// Its address, for a [`Proxy`](super::Proxy) or a client that takes no URL.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Sends SIGKILL to the server, and waits for its end.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Kills it if it runs, and starts it again on the same port with the same data.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), ServerError> {
        self.process.restart()
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

    /// The process itself: its id and its log.
    pub fn process(&self) -> &ChildServer {
        &self.process
    }

    /// The folder with its data.
    pub fn folder(&self) -> &ServerFolder {
        &self.folder
    }
}

impl fmt::Debug for MariaDbServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MariaDbServer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether the server with this very process id greets: it has written its own number, and sends the first packet of the protocol.
fn is_up(pid: &Path, port: u16, process: u32) -> Result<(), String> {
    let written = fs::read_to_string(pid).map_err(|error| error.to_string())?;
    if written.trim() != process.to_string() {
        return Err("its pid file names another process".to_owned());
    }
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let timeout = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).map_err(|error| format!("it does not greet: {error}"))?;
    match greeting[4] {
        10 => Ok(()),
        other => Err(format!("its greeting is of protocol {other}")),
    }
}
