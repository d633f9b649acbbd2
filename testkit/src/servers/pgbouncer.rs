use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::port::{free_port, on_free_ports};
use super::unprivileged::Account;
use super::{ChildServer, ServerError, ServerFolder, find_program};

const PATIENCE: Duration = Duration::from_secs(60);

/// A PgBouncer in transaction mode before a [`PostgresServer`](super::PostgresServer): each transaction may run on another of its four
/// connections. Up in some milliseconds.
pub struct PgBouncer {
    process: ChildServer,
    port: u16,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl PgBouncer {
    /// Starts one before the server at this address.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Missing`](super::ServerErrorKind::Missing), `NotReady` or `System`.
    pub fn start(server: SocketAddr) -> Result<Self, ServerError> {
        on_free_ports(|| Self::start_once(server))
    }

    fn start_once(server: SocketAddr) -> Result<Self, ServerError> {
        let program = find_program("pgbouncer", &["/usr/sbin/pgbouncer"])?;
        let account = Account::choose(&["postgres", "nobody"])?;
        let folder = ServerFolder::create("pgbouncer")?;
        let own = account.folder(folder.path(), "own")?;
        let pid = own.join("pid");
        let port = free_port()?;
        let settings = format!(
            "[databases]\npostgres = host={} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npidfile = {}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nserver_round_robin = 1\nmax_client_conn = 100\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.ip(),
            server.port(),
            pid.display()
        );
        let file = own.join("pgbouncer.ini");
        let written = fs::write(&file, settings).and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
        });
        written.map_err(|cause| ServerError::system("write the settings of PgBouncer", &cause))?;
        let launch =
            account.launch("pgbouncer", &program, folder.path()).arguments([file]).patience(PATIENCE);
        let process = ChildServer::start(launch, move |process| is_up(&pid, port, process))?;
        Ok(Self { process, port, folder })
    }

    /// The URL of the server's database `postgres`, through it. Our options can be appended: `?outbox.name=orders`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The process itself: its id and its log.
    pub fn process(&self) -> &ChildServer {
        &self.process
    }

    /// The folder with its settings.
    pub fn folder(&self) -> &ServerFolder {
        &self.folder
    }
}

impl fmt::Debug for PgBouncer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PgBouncer").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Whether the one with this very process id takes connections.
fn is_up(pid: &Path, port: u16, process: u32) -> Result<(), String> {
    let written = fs::read_to_string(pid).map_err(|error| error.to_string())?;
    if written.trim() != process.to_string() {
        return Err("its pid file names another process".to_owned());
    }
    let address = (Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop).map_err(|error| error.to_string())
}
