use crate::failure::Failure;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// What is logged where nothing is asked for: recovery, trouble and stops, but not every claim.
const DEFAULT: &str = "info";

/// Logs to standard error, since standard output may carry messages.
pub(crate) fn install(filter: Option<&str>) -> Result<(), Failure> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let (name, filter) = match (filter, from_environment.as_deref()) {
        (Some(filter), _) => ("--log", filter),
        (None, Some(filter)) if !filter.is_empty() => ("RUST_LOG", filter),
        _ => ("the default", DEFAULT),
    };
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        Failure::misconfigured(format!(
            "{name} is {filter:?}: {error}; it takes a level such as `debug`, or `target=level,…`"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        // Its complaint about a log that cannot be written would go the same way, and panic there.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
