use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::port::{free_port, on_free_ports};
use super::super::{ChildServer, Launch, Proxy, ServerError, ServerFolder, find_program};
use super::objects::ObjectStore;
use super::{KafkaServer, ready};

const PATIENCE: Duration = Duration::from_secs(60);

/// How a [`KafkaServer`] is started.
#[derive(Clone, Debug, Default)]
pub struct KafkaOptions {
    in_memory: bool,
    behind_proxy: bool,
    advertised: Option<SocketAddr>,
    authentication: bool,
    topics: Vec<(String, u32)>,
}

impl KafkaOptions {
    /// Everything is kept in the broker's memory: fast, as a measurement needs it, and gone when it is killed.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// A [`Proxy`] stands in front of it, and all clients are told to connect there.
    #[must_use]
    pub fn behind_proxy(mut self) -> Self {
        self.behind_proxy = true;
        self
    }

    /// All clients are told to connect there, where somebody forwards to it, such as one who speaks TLS: this broker does not.
    #[must_use]
    pub fn advertised(mut self, address: SocketAddr) -> Self {
        self.advertised = Some(address);
        self
    }

    /// It lets in nobody but users, by SASL with SCRAM-SHA-512; it knows none and forgets those that it is told of. Its topics have to
    /// be given [before](Self::topic), since its own program cannot log in.
    #[must_use]
    pub fn authentication(mut self) -> Self {
        self.authentication = true;
        self
    }

    /// A topic that is there when it has started.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>, partitions: u32) -> Self {
        self.topics.push((name.into(), partitions));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// As [`KafkaServer::start`].
    pub fn start(&self) -> Result<KafkaServer, ServerError> {
        on_free_ports(|| self.start_once())
    }

    fn start_once(&self) -> Result<KafkaServer, ServerError> {
        let installed = cache().map(|folder| folder.join("pillarbox/tansu/tansu"));
        let installed = installed.map(|path| path.display().to_string());
        let program = find_program("tansu", installed.as_deref().as_slice())?;
        let folder = ServerFolder::create("kafka")?;
        let port = free_port()?;
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let proxy = if self.behind_proxy { Some(Proxy::start(address)?) } else { None };
        let forwarder = proxy.as_ref().map(Proxy::address).or(self.advertised);
        let advertised = forwarder.unwrap_or(address);
        let objects = if self.in_memory { None } else { Some(ObjectStore::start()?) };
        // Whoever answers on the port tells its cluster's name, so that no other broker is taken for this one.
        let cluster = format!("pillarbox-{}-{port}", std::process::id());
        let engine = if self.in_memory { "memory://tansu/" } else { "s3://tansu/" };
        let mut launch = Launch::new("tansu", &program, folder.path())
            .without_environment("AWS_")
            .without_environment("TANSU_")
            .arguments(["broker", "--cluster-id", &cluster, "--storage-engine", engine])
            .arguments(["--listener-url", &format!("tcp://{address}")])
            .arguments(["--advertised-listener-url", &format!("tcp://{advertised}")])
            .patience(PATIENCE);
        if let Some(objects) = &objects {
            launch = launch
                .environment("AWS_ENDPOINT", format!("http://{}", objects.address()))
                .environment("AWS_ALLOW_HTTP", "true")
                .environment("AWS_SKIP_SIGNATURE", "true")
                .environment("AWS_REGION", "local");
        }
        // Topics are made while everybody may make them.
        let process = ChildServer::start(launch.clone(), move |_| ready::is_cluster(address, &cluster))?;
        let server = KafkaServer { process, program, address, proxy, objects, folder };
        for (name, partitions) in &self.topics {
            server.create_topic(name, *partitions)?;
        }
        if !self.authentication {
            return Ok(server);
        }
        server.kill();
        let launch = launch.arguments(["--authentication"]);
        let process = ChildServer::start(launch, move |_| ready::listens(address))?;
        Ok(KafkaServer { process, ..server })
    }
}

/// Where `scripts/setup` unpacks programs that no distribution has.
fn cache() -> Option<PathBuf> {
    let given = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    given.or_else(|| env::home_dir().map(|home| home.join(".cache")))
}
