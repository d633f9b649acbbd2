//! One shared connection, made when it is first needed and again when it broke.

use crate::config::RedisConfig;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, ServerErrorKind, TlsMode, Value,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Where the server or servers are, with their credentials.
#[derive(Clone)]
pub(crate) enum Target {
    Single(Box<ConnectionInfo>),
    Cluster(Vec<ConnectionInfo>),
    Sentinel(Box<SentinelTarget>),
}

#[derive(Clone)]
pub(crate) struct SentinelTarget {
    pub(crate) sentinels: Vec<ConnectionAddr>,
    pub(crate) service: String,
    pub(crate) redis: RedisConnectionInfo,
    pub(crate) tls: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Target {
    /// Hosts and ports, for errors and logs.
    pub(crate) fn place(&self) -> String {
        let all = |addresses: &mut dyn Iterator<Item = &ConnectionAddr>| {
            addresses.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Single(info) => info.addr().to_string(),
            Self::Cluster(nodes) => all(&mut nodes.iter().map(ConnectionInfo::addr)),
            Self::Sentinel(target) => {
                format!("sentinels {} of {:?}", all(&mut target.sentinels.iter()), target.service)
            }
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// A client for the one server that takes the writes now; `None` for a cluster.
    pub(crate) async fn client(&self) -> Result<Option<Client>, RedisError> {
        provide_cryptography();
        match self {
            Self::Single(info) => Client::open((**info).clone()).map(Some),
            Self::Sentinel(target) => target.client()?.async_get_client().await.map(Some),
            Self::Cluster(_) => Ok(None),
        }
    }
}

impl SentinelTarget {
    fn client(&self) -> Result<SentinelClient, RedisError> {
        let mut builder =
            SentinelClientBuilder::new(self.sentinels.clone(), &self.service, SentinelServerType::Master)?
                .set_client_to_redis_db(self.redis.db())
                .set_client_to_redis_protocol(self.redis.protocol());
        if let Some(username) = self.redis.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = self.redis.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(username) = &self.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if self.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        builder.build()
    }
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection: nothing was sent.
    Connect(RedisError),
    /// A connection was there.
    Request(RedisError),
}

/// A connection that is shared by all clones. Dropping a call's future harms no other call.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    target: Target,
    connect_timeout: Duration,
    response_timeout: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    link: Option<Link>,
    /// Counts the links, so that only the one that broke is dropped.
    generation: u64,
}

#[derive(Clone)]
pub(crate) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(crate) fn new(config: &RedisConfig) -> Self {
        Self::with_timeout(config, config.response_timeout)
    }

    /// One whose answers may take longer, for commands that block.
    pub(crate) fn with_timeout(config: &RedisConfig, response_timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            target: config.target.clone(),
            connect_timeout: config.connect_timeout,
            response_timeout,
            slot: Mutex::default(),
        }))
    }

    pub(crate) fn target(&self) -> &Target {
        &self.0.target
    }

    pub(crate) async fn run(&self, command: &Cmd) -> Result<Value, Failure> {
        let (mut link, generation) = self.link().await?;
        let result = link.req_packed_command(command).await.and_then(Value::extract_error);
        self.examined(result, generation).await
    }

    pub(crate) async fn run_pipeline(&self, pipeline: &Pipeline) -> Result<(), Failure> {
        let (mut link, generation) = self.link().await?;
        let result = pipeline.exec_async(&mut link).await;
        self.examined(result, generation).await
    }

    /// The answers of commands that are no transaction; they run in their order.
    pub(crate) async fn read_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        let (mut link, generation) = self.link().await?;
        let result = pipeline.query_async(&mut link).await;
        self.examined(result, generation).await
    }

    async fn link(&self) -> Result<(Link, u64), Failure> {
        let mut slot = self.0.slot.lock().await;
        if let Some(link) = &slot.link {
            return Ok((link.clone(), slot.generation));
        }
        let link = self.0.connect().await.map_err(Failure::Connect)?;
        slot.generation += 1;
        slot.link = Some(link.clone());
        Ok((link, slot.generation))
    }

    /// Drops a link that can serve nobody any more; the next call makes a new one.
    async fn examined<T>(&self, result: Result<T, RedisError>, generation: u64) -> Result<T, Failure> {
        if let Err(error) = &result
            && is_broken(error)
        {
            let mut slot = self.0.slot.lock().await;
            if slot.generation == generation {
                slot.link = None;
            }
        }
        result.map_err(Failure::Request)
    }
}

impl Shared {
    /// Boxed, since the clients' futures are so deep that a caller's own would meet the compiler's recursion limit.
    fn connect(&self) -> RedisFuture<'_, Link> {
        let connecting = async {
            if let Target::Cluster(nodes) = &self.target {
                provide_cryptography();
                let client = redis::cluster::ClusterClientBuilder::new(nodes.clone())
                    .connection_timeout(self.connect_timeout)
                    .response_timeout(self.response_timeout)
                    .build()?;
                return Ok(Link::Cluster(client.get_async_connection().await?));
            }
            let Some(client) = self.target.client().await? else { return Err(timed_out()) };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.connect_timeout))
                .set_response_timeout(Some(self.response_timeout));
            Ok(Link::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
        };
        Box::pin(async {
            tokio::time::timeout(self.connect_timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
        })
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A timeout counts too: the connection may be half open. So does a server that was demoted: behind sentinels another one
/// takes the writes now.
fn is_broken(error: &RedisError) -> bool {
    let demoted =
        matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown));
    demoted || error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("UNBLOCKED")
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// TLS needs a provider of cryptography; one that the program has chosen stays.
fn provide_cryptography() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only if another thread was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
