use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::servers::{Launch, ServerError, ServerFolder, find_program};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The name of every replica set here.
pub(super) const SET: &str = "rs0";

/// How `mongod` is started: as a member of a replica set that is not initiated yet, if it is to be one.
pub(super) fn launch(
    folder: &ServerFolder,
    port: u16,
    member: bool,
    arguments: &[String],
) -> Result<(Launch, SocketAddr), ServerError> {
    let installed = cache().map(|folder| folder.join("pillarbox/mongod/mongod"));
    let installed = installed.map(|path| path.to_string_lossy().into_owned());
    let preferred: Vec<&str> = installed.iter().map(String::as_str).collect();
    let program = find_program("mongod", &preferred)?;
    let launch = Launch::new(format!("mongod-{port}"), program, folder.path())
        .arguments(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
        .arguments(if member { &["--replSet", SET][..] } else { &[] })
        .arguments([PathBuf::from("--dbpath"), folder.path().to_owned()])
        // Small, since tests run several on small machines.
        .arguments(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256", "--nounixsocket"])
        .arguments(["--setParameter", "diagnosticDataCollectionEnabled=false"])
        .arguments(arguments)
        .patience(PATIENCE);
    Ok((launch, (Ipv4Addr::LOCALHOST, port).into()))
}

/// Where `scripts/setup` installs what no package manager has.
fn cache() -> Option<PathBuf> {
    let given = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    given.or_else(|| env::home_dir().map(|home| home.join(".cache")))
}
