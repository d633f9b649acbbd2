mod launch;
mod set;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use bson::{Document, doc};

pub use set::MongoReplicaSet;

use super::port::{free_port, on_free_ports};
use super::{ChildServer, ServerError, ServerFolder};
use launch::{SET, launch};

/// A MongoDB server of one test: a replica set of one node, so that it has transactions and change streams. Up in two seconds.
///
/// Tests that need nothing else can share one and use databases or outboxes of different names.
pub struct MongoServer {
    process: ChildServer,
    port: u16,
    /// After the process, so that the folder goes when nobody writes into it any more.
    folder: ServerFolder,
}

impl MongoServer {
    /// Starts a server and waits until it takes writes.
    ///
    /// # Errors
    ///
    /// [`Missing`](super::ServerErrorKind::Missing), [`NotReady`](super::ServerErrorKind::NotReady) or
    /// [`System`](super::ServerErrorKind::System).
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments of `mongod`, such as `--setParameter` and its value.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(arguments: &[&str]) -> Result<Self, ServerError> {
        Self::launched(arguments, true)
    }

    /// Starts a server that is no replica set, and so has no transactions: for tests of what is told then.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_standalone() -> Result<Self, ServerError> {
        Self::launched(&[], false)
    }

    fn launched(arguments: &[&str], member: bool) -> Result<Self, ServerError> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        on_free_ports(|| {
            let folder = ServerFolder::create("mongodb")?;
            let port = free_port()?;
            let (launch, address) = launch(&folder, port, member, &arguments)?;
            let process = ChildServer::start(launch, move |process| {
                wire::is_process(address, process)?;
                if member {
                    initiate_alone(address)?;
                }
                wire::is_primary(address)
            })?;
            Ok(Self { process, port, folder })
        })
    }

    /// The URL of a database: `mongodb://127.0.0.1:PORT/DATABASE?replicaSet=rs0`. Our options can be appended: `&outbox.name=orders`.
    pub fn url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}?replicaSet={SET}", self.port)
    }

    /// The same without discovery: for a client that goes through a [`Proxy`](super::Proxy), and would else learn the server's own address
    /// from it.
    pub fn direct_url(&self, database: &str) -> String {
        format!("mongodb://127.0.0.1:{}/{database}?directConnection=true", self.port)
    }

    /// Its address, for a [`Proxy`](super::Proxy).
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Runs one command on a connection of its own, in the database `admin` if it names no `$db`.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::ServerErrorKind::Refused), when the server answers with an error, and
    /// [`NotRunning`](super::ServerErrorKind::NotRunning), when it does not answer.
    pub fn command(&self, command: &Document) -> Result<Document, ServerError> {
        wire::call(self.address(), command)
    }

    /// Sends SIGKILL, and waits for its end. What was acknowledged by the majority is in its journal.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Stops it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    ///
    /// [`NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn pause(&self) -> Result<(), ServerError> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`NotRunning`](super::ServerErrorKind::NotRunning).
    pub fn resume(&self) -> Result<(), ServerError> {
        self.process.resume()
    }

    /// Kills it if it runs, starts it again on the same port with the same data, and waits until it takes writes.
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

impl fmt::Debug for MongoServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MongoServer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Makes a set of this server alone, the first time that it is asked.
fn initiate_alone(address: SocketAddr) -> Result<(), String> {
    let hello = wire::hello(address).map_err(|error| error.to_string())?;
    if !wire::says(&hello, "isreplicaset") {
        return Ok(());
    }
    let config = doc! { "_id": SET, "members": [{ "_id": 0, "host": address.to_string() }] };
    wire::call(address, &doc! { "replSetInitiate": config }).map(drop).map_err(|error| error.to_string())
}
