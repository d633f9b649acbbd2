use crate::servers::port::{free_port, on_free_ports};
use crate::servers::wait::poll;
use crate::servers::{RedisOptions, RedisServer, ServerError, ServerErrorKind};

use super::PATIENCE;

/// The number of slots of every Redis Cluster.
const SLOTS: usize = 16_384;
const NODES: usize = 3;

/// A Redis Cluster of three primaries with a third of the slots each. Up in two seconds, since a node waits that long before it serves.
///
/// A client is told the nodes' own addresses, so it goes around a [`Proxy`](crate::servers::Proxy). Pause a node instead.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three nodes with the default options.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&RedisServer::options())
    }

    /// Starts three nodes with `options`. A node that does not answer for a second counts as failed.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub fn start_with(options: &RedisOptions) -> Result<Self, ServerError> {
        let nodes = (0..NODES).map(|_| on_free_ports(|| start_node(options))).collect::<Result<_, _>>()?;
        let cluster = Self { nodes };
        cluster.assign_slots()?;
        cluster.introduce()?;
        cluster.wait_until_ok()?;
        Ok(cluster)
    }

    /// The nodes, in the order of their slots.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The URL of each node; a client of a cluster is given all of them.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// Waits until every node sees all slots served: after a start, a [`restart`](RedisServer::restart) or a pause of a node.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotReady`].
    pub fn wait_until_ok(&self) -> Result<(), ServerError> {
        for node in &self.nodes {
            let outcome = poll(PATIENCE, || {
                let state = node.command(&["CLUSTER", "INFO"]).map_err(|error| error.to_string())?;
                let complete = [
                    "cluster_state:ok",
                    &format!("cluster_slots_ok:{SLOTS}"),
                    &format!("cluster_known_nodes:{NODES}"),
                ];
                let is_complete = complete.iter().all(|fact| state.lines().any(|line| line == *fact));
                is_complete.then_some(()).ok_or(state)
            });
            outcome.map_err(|reason| {
                let message = format!("the cluster is not complete; {} says:\n{reason}", node.address());
                ServerError::new(ServerErrorKind::NotReady, message)
            })?;
        }
        Ok(())
    }

    fn assign_slots(&self) -> Result<(), ServerError> {
        for (index, node) in self.nodes.iter().enumerate() {
            let slots = SLOTS * index / NODES..SLOTS * (index + 1) / NODES;
            let (first, last) = (slots.start.to_string(), (slots.end - 1).to_string());
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
            // Nodes with different epochs need not find out by a conflict which of them is the newer.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        }
        Ok(())
    }

    fn introduce(&self) -> Result<(), ServerError> {
        for node in &self.nodes {
            for other in &self.nodes {
                let (port, bus) =
                    (other.port.to_string(), other.command(&["CONFIG", "GET", "cluster-port"])?);
                let bus = bus.lines().last().unwrap_or_default().to_owned();
                if other.port != node.port {
                    node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
                }
            }
        }
        Ok(())
    }
}

fn start_node(options: &RedisOptions) -> Result<RedisServer, ServerError> {
    let bus = free_port()?.to_string();
    let words = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus]
        .map(str::to_owned);
    options.start_once(&words)
}
