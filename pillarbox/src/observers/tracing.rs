use pillarbox_core::{ErrorKind, MessageId, Observation, Observer};
use tracing::{debug, error, info, trace, warn};

/// Writes what a relay does as events of the crate `tracing`, with the target `pillarbox`.
///
/// `error`: a message was given up, or one side refuses the relay's settings. `warn`: something failed and is tried again, or a
/// lease was lost. `info`: recovery and stopping. `debug`: what is claimed, published and settled. Payloads are never written.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver(());

impl TracingObserver {
    /// Writes to the subscriber that is current when something happens.
    pub const fn new() -> Self {
        Self(())
    }
}

const TARGET: &str = "pillarbox";

impl Observer for TracingObserver {
    fn observe(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::Claimed { messages, runs, buried, suspects, took } => {
                if buried > 0 {
                    error!(target: TARGET, buried, "the store buried messages that had killed relays");
                }
                if messages > 0 {
                    debug!(target: TARGET, messages, runs, suspects, ?took, "claimed");
                } else {
                    trace!(target: TARGET, suspects, ?took, "nothing to claim");
                }
            }
            Observation::Published { destination, confirmed, failed, took } => {
                debug!(target: TARGET, destination = destination.0, confirmed, failed, ?took, "published");
            }
            Observation::Retried { id, attempts, after, reason } => {
                warn!(target: TARGET, id = named(id), attempts, ?after, reason, "a send failed; it is tried again");
            }
            Observation::Buried { id, reason } => {
                error!(target: TARGET, id = named(id), reason, "a message was given up; it is a dead letter now");
            }
            Observation::Released { messages } => debug!(target: TARGET, messages, "given back untouched"),
            Observation::Settled { published, took } => debug!(target: TARGET, published, ?took, "settled"),
            Observation::Fenced { sent } => {
                warn!(target: TARGET, sent, "a lease was lost to another relay; what was sent may be sent again");
            }
            Observation::CutOff { destination } => {
                warn!(target: TARGET, destination = destination.0, "a publish took too long and was cut off");
            }
            Observation::Paused { destination, pause, error: Some(reason) } => {
                let destination = destination.0;
                let reason = reason.report();
                warn!(target: TARGET, destination, ?pause, reason, "a destination is left alone for a while");
            }
            Observation::Paused { destination, pause, error: None } => {
                warn!(target: TARGET, destination = destination.0, ?pause, "a destination is left alone for a while");
            }
            Observation::Resumed { destination } => {
                info!(target: TARGET, destination = destination.0, "a destination answers again");
            }
            Observation::StoreFailed { failures, pause, error: reason } => {
                let is_refused = reason.kind() == ErrorKind::Misconfigured;
                let reason = reason.report();
                if is_refused {
                    error!(target: TARGET, failures, ?pause, reason, "the store refuses; it is tried again");
                } else {
                    warn!(target: TARGET, failures, ?pause, reason, "the store failed; it is tried again");
                }
            }
            Observation::StoreRecovered => info!(target: TARGET, "the store answers again"),
            Observation::Stopping { held } => info!(target: TARGET, held, "stopping"),
            _ => trace!(target: TARGET, ?observation, "observed"),
        }
    }
}

fn named(id: Option<MessageId>) -> String {
    id.map_or_else(|| "unknown".to_owned(), |id| id.to_string())
}
