use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use bson::{Bson, Document, doc};

use crate::servers::port::{free_port, on_free_ports};
use crate::servers::wait::poll;
use crate::servers::{ChildServer, ServerError, ServerErrorKind, ServerFolder};

use super::launch::{PATIENCE, SET, launch};
use super::wire;

/// A replica set of three nodes on one machine. Elects another primary within two seconds, so that a test need not wait for long.
pub struct MongoReplicaSet {
    nodes: Vec<Node>,
}

struct Node {
    process: ChildServer,
    port: u16,
    _folder: ServerFolder,
}

impl MongoReplicaSet {
    /// How many nodes it has.
    pub const NODES: usize = 3;

    /// Starts the nodes, initiates the set and waits for a primary.
    ///
    /// # Errors
    ///
    /// [`Missing`](ServerErrorKind::Missing), [`NotReady`](ServerErrorKind::NotReady) or [`System`](ServerErrorKind::System).
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&[])
    }

    /// Starts it with further arguments of every `mongod`, such as `--setParameter` and its value.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(arguments: &[&str]) -> Result<Self, ServerError> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let node = || on_free_ports(|| Node::start(&arguments));
        let nodes = (0..Self::NODES).map(|_| node()).collect::<Result<Vec<_>, _>>()?;
        let members: Vec<Bson> = nodes
            .iter()
            .zip(0_i32..)
            .map(|(node, id)| Bson::from(doc! { "_id": id, "host": node.address().to_string() }))
            .collect();
        let settings = doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 300 };
        let config = doc! { "_id": SET, "members": members, "settings": settings };
        let set = Self { nodes };
        if let Some(first) = set.nodes.first() {
            wire::call(first.address(), &doc! { "replSetInitiate": config })?;
        }
        set.primary()?;
        set.wait_until_complete()?;
        Ok(set)
    }

    /// The URL of a database, with all nodes.
    pub fn url(&self, database: &str) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("mongodb://{}/{database}?replicaSet={SET}", hosts.join(","))
    }

    /// The number of the node that is the primary; waits for one, for at most a minute.
    ///
    /// # Errors
    ///
    /// [`NotReady`](ServerErrorKind::NotReady).
    pub fn primary(&self) -> Result<usize, ServerError> {
        let found = poll(PATIENCE, || {
            let primary = self.nodes.iter().position(|node| wire::is_primary(node.address()).is_ok());
            primary.ok_or_else(|| "the replica set has no primary".to_owned())
        });
        found.map_err(|reason| ServerError::new(ServerErrorKind::NotReady, reason))
    }

    /// Makes the primary step down, so that another node is elected. The connections to it live.
    ///
    /// # Errors
    ///
    /// [`Refused`](ServerErrorKind::Refused), when no other node has caught up in time.
    pub fn step_down(&self) -> Result<(), ServerError> {
        let primary = self.primary()?;
        let command = doc! { "replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 10 };
        self.command(primary, &command).map(drop)
    }

    /// Runs one command at a node.
    ///
    /// # Errors
    ///
    /// [`Refused`](ServerErrorKind::Refused) and [`NotRunning`](ServerErrorKind::NotRunning).
    ///
    /// # Panics
    ///
    /// If there is no node of that number.
    pub fn command(&self, node: usize, command: &Document) -> Result<Document, ServerError> {
        wire::call(self.nodes[node].address(), command)
    }

    /// Sends SIGKILL to a node, and waits for its end.
    ///
    /// # Panics
    ///
    /// If there is no node of that number.
    pub fn kill(&self, node: usize) {
        self.nodes[node].process.kill();
    }

    /// Starts a node again, with its data.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If there is no node of that number.
    pub fn restart(&self, node: usize) -> Result<(), ServerError> {
        self.nodes[node].process.restart()
    }

    /// Waits until every node is the primary or a secondary.
    fn wait_until_complete(&self) -> Result<(), ServerError> {
        let outcome = poll(PATIENCE, || {
            for node in &self.nodes {
                let hello = wire::hello(node.address()).map_err(|error| error.to_string())?;
                if !wire::says(&hello, "isWritablePrimary") && !wire::says(&hello, "secondary") {
                    return Err(format!("{} is neither primary nor secondary", node.address()));
                }
            }
            Ok(())
        });
        outcome.map_err(|reason| ServerError::new(ServerErrorKind::NotReady, reason))
    }
}

impl fmt::Debug for MongoReplicaSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<SocketAddr> = self.nodes.iter().map(Node::address).collect();
        formatter.debug_struct("MongoReplicaSet").field("nodes", &addresses).finish_non_exhaustive()
    }
}

impl Node {
    fn start(arguments: &[String]) -> Result<Self, ServerError> {
        let folder = ServerFolder::create("mongodb")?;
        let port = free_port()?;
        let (launch, address) = launch(&folder, port, true, arguments)?;
        let process = ChildServer::start(launch, move |process| wire::is_process(address, process))?;
        Ok(Self { process, port, _folder: folder })
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}
