use std::net::{Ipv4Addr, SocketAddr};

use crate::servers::port::{free_port, on_free_ports};
use crate::servers::wait::poll;
use crate::servers::{ChildServer, Launch, RedisOptions, RedisServer, ServerError, ServerErrorKind};
use crate::servers::{ServerFolder, find_program};

use super::{PATIENCE, is_up};

/// The name under which the sentinels watch the primary.
const SERVICE: &str = "pillarbox";
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// How many sentinels have to agree that the primary is down.
const QUORUM: usize = 2;

/// A primary with two replicas, watched by three sentinels. Up in about two seconds, and a killed primary is replaced in about
/// as long: one that is silent for half a second counts as down.
#[derive(Debug)]
pub struct RedisSentinels {
    nodes: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts them with the default options.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&RedisServer::options())
    }

    /// Starts primary and replicas with `options`. The sentinels have no password.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::start`].
    pub fn start_with(options: &RedisOptions) -> Result<Self, ServerError> {
        let primary = options.start()?;
        let replica = options.clone().replica_of(&primary);
        let replicas = (0..REPLICAS).map(|_| replica.start()).collect::<Result<Vec<_>, _>>()?;
        let start = |_| on_free_ports(|| start_sentinel(&primary));
        let sentinels = (0..SENTINELS).map(start).collect::<Result<_, _>>()?;
        let nodes = std::iter::once(primary).chain(replicas).collect();
        let set = Self { nodes, sentinels };
        set.wait_until_complete()?;
        Ok(set)
    }

    /// All Redis servers; the first was the primary at the start.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The sentinels.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The URLs of the sentinels, which a client is given together with the [`service`](Self::service).
    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The name by which clients ask the sentinels for the primary.
    pub fn service(&self) -> &'static str {
        SERVICE
    }

    /// The primary that the first sentinel which answers names, whether it lives or not.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`], when no sentinel answers.
    pub fn primary(&self) -> Result<&RedisServer, ServerError> {
        let mut outcome = Err(ServerError::refused("there is no sentinel"));
        for sentinel in &self.sentinels {
            outcome = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
            if outcome.is_ok() {
                break;
            }
        }
        let answer = outcome?;
        let named = self.nodes.iter().find(|node| answer.lines().last() == Some(&node.port.to_string()));
        named.ok_or_else(|| ServerError::refused(format!("a sentinel names an unknown primary: {answer}")))
    }

    /// Waits until a server other than `old` is the primary and says so itself, after a [`kill`](RedisServer::kill) or a
    /// [`pause`](RedisServer::pause) of the primary at `old`.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotReady`] after a minute.
    pub fn wait_for_primary_other_than(&self, old: SocketAddr) -> Result<&RedisServer, ServerError> {
        let outcome = poll(PATIENCE, || {
            let primary = self.primary().map_err(|error| error.to_string())?;
            if primary.address() == old {
                return Err(format!("the sentinels still name {old}"));
            }
            let role = primary.command(&["ROLE"]).map_err(|error| error.to_string())?;
            if role.starts_with("master") { Ok(primary) } else { Err(format!("its role is {role}")) }
        });
        outcome.map_err(|reason| {
            ServerError::new(ServerErrorKind::NotReady, format!("no new primary: {reason}"))
        })
    }

    /// Every sentinel knows the replicas and the other sentinels: before that, no failover can succeed.
    fn wait_until_complete(&self) -> Result<(), ServerError> {
        let facts =
            format!("status=ok,address={},slaves={REPLICAS},sentinels={SENTINELS}", self.nodes[0].address());
        self.sentinels
            .iter()
            .try_for_each(|sentinel| sentinel.wait_for(&format!("master0:name={SERVICE},{facts}")))
    }
}

fn start_sentinel(primary: &RedisServer) -> Result<RedisServer, ServerError> {
    let program = find_program("redis-server", &[])?;
    let folder = ServerFolder::create("sentinel")?;
    let port = free_port()?;
    let mut settings = format!(
        "port {port}\nbind 127.0.0.1\n\
         sentinel monitor {SERVICE} 127.0.0.1 {} {QUORUM}\n\
         sentinel down-after-milliseconds {SERVICE} 500\n\
         sentinel failover-timeout {SERVICE} 2000\n",
        primary.port
    );
    if let Some(password) = &primary.password {
        settings += &format!("sentinel auth-pass {SERVICE} {password}\n");
    }
    // A sentinel rewrites its settings, so that it knows the others after a restart.
    folder.write("sentinel.conf", &settings)?;
    let launch = Launch::new("sentinel", program, folder.path())
        .arguments(["sentinel.conf", "--sentinel"])
        .patience(PATIENCE);
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let process = ChildServer::start(launch, move |process| is_up(address, None, process))?;
    Ok(RedisServer { process, port, password: None, folder })
}
