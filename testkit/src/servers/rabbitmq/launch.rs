//! What a private node needs to be told, so that it shares nothing with a system's node nor with other tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::servers::{Launch, ServerError, ServerFolder, find_program, free_port};

use super::{installation, loopback};

/// Five seconds when nothing else runs; several nodes that start together on a small machine take a multiple of that.
const PATIENCE: Duration = Duration::from_secs(180);

/// A broker stops accepting messages when the disk is nearly full. A test machine's disk may well be.
const SETTINGS: &str = "disk_free_limit.absolute = 1MB\n";

/// Erlang's own ports listen everywhere unless told otherwise. The registry is started here, so that it is ours to end.
const ERLANG: &str = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false";

/// The programs and ports of one node.
#[derive(Debug)]
pub(super) struct Node {
    scripts: PathBuf,
    folder: PathBuf,
    port: u16,
    registry_port: u16,
    distribution_port: u16,
    control_port: u16,
}

impl Node {
    /// Chooses the ports and writes the settings.
    pub(super) fn prepare(folder: &ServerFolder, settings: &str) -> Result<Self, ServerError> {
        let scripts = installation::scripts(folder)?;
        folder.write("rabbitmq.conf", &format!("{SETTINGS}{settings}\n"))?;
        folder.write("enabled_plugins", "[].\n")?;
        folder.write("environment.conf", "")?;
        Ok(Self {
            scripts,
            folder: folder.path().to_owned(),
            port: free_port()?,
            registry_port: free_port()?,
            distribution_port: free_port()?,
            control_port: free_port()?,
        })
    }

    fn name(&self) -> String {
        format!("{}localhost", self.name_before_host())
    }

    /// The port belongs to this process, so the name is unique on this machine.
    pub(super) fn name_before_host(&self) -> String {
        format!("pillarbox-{}@", self.port)
    }

    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    pub(super) fn registry_address(&self) -> SocketAddr {
        loopback(self.registry_port)
    }

    /// `epmd` in the foreground. A broker would start one itself if there were none, as a daemon that outlives it.
    pub(super) fn registry(&self, folder: &ServerFolder) -> Result<Launch, ServerError> {
        let port = self.registry_port.to_string();
        Ok(Launch::new("epmd", find_program("epmd", &[])?, folder.path()).arguments([
            "-port",
            &port,
            "-address",
            "127.0.0.1",
        ]))
    }

    pub(super) fn broker(&self, folder: &ServerFolder) -> Launch {
        self.launch("rabbitmq", "rabbitmq-server", folder.path()).patience(PATIENCE)
    }

    pub(super) fn control(&self) -> Launch {
        self.launch("rabbitmqctl", "rabbitmqctl", &self.folder)
    }

    fn launch(&self, name: &str, script: &str, folder: &Path) -> Launch {
        let inside = |name: &str| folder.join(name);
        Launch::new(name, self.scripts.join(script), folder)
            .without_environment("RABBITMQ_")
            .without_environment("ERL_")
            .without_environment("NOTIFY_SOCKET")
            // Otherwise the scripts follow links to where they are, and find everything that is installed there.
            .environment("RABBITMQ_SCRIPTS_DIR", &self.scripts)
            // Here Erlang keeps the secret by which control and node trust each other.
            .environment("HOME", folder)
            .environment("ERL_EPMD_PORT", self.registry_port.to_string())
            .environment("ERL_EPMD_ADDRESS", "127.0.0.1")
            .environment("RABBITMQ_NODENAME", self.name())
            .environment("RABBITMQ_NODE_PORT", self.port.to_string())
            .environment("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .environment("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .environment("RABBITMQ_CTL_DIST_PORT_MIN", self.control_port.to_string())
            .environment("RABBITMQ_CTL_DIST_PORT_MAX", self.control_port.to_string())
            .environment("RABBITMQ_CTL_ERL_ARGS", ERLANG)
            .environment("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
            .environment("RABBITMQ_MNESIA_BASE", inside("mnesia"))
            .environment("RABBITMQ_LOG_BASE", inside("log"))
            .environment("RABBITMQ_LOGS", "-")
            .environment("RABBITMQ_CONF_ENV_FILE", inside("environment.conf"))
            .environment("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf"))
            .environment("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config"))
            .environment("RABBITMQ_GENERATED_CONFIG_DIR", inside("generated"))
            .environment("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins"))
            // The script then becomes the broker, instead of a shell that waits for it.
            .environment("RUNNING_UNDER_SYSTEMD", "true")
    }
}
