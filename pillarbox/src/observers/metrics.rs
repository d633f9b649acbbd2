use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use pillarbox_core::{Destination, Observation, Observer};
use std::fmt;

/// Writes what a relay does to the recorder of the crate `metrics`: install one before this is made.
///
/// | name | kind | labels |
/// | --- | --- | --- |
/// | `pillarbox_claims_total`, `pillarbox_claimed_messages_total` | counter | |
/// | `pillarbox_confirmed_messages_total`, `pillarbox_failed_sends_total` | counter | `destination` |
/// | `pillarbox_settled_messages_total` | counter | |
/// | `pillarbox_retried_messages_total`, `pillarbox_buried_messages_total`, `pillarbox_released_messages_total` | counter | |
/// | `pillarbox_fenced_runs_total`, `pillarbox_store_failures_total` | counter | |
/// | `pillarbox_cut_off_publishes_total` | counter | `destination` |
/// | `pillarbox_store_up` | gauge, 1 or 0 | |
/// | `pillarbox_destination_up` | gauge, 1 or 0 | `destination` |
/// | `pillarbox_claim_seconds`, `pillarbox_settle_seconds` | histogram | |
/// | `pillarbox_publish_seconds` | histogram | `destination` |
pub struct MetricsObserver {
    claims: Counter,
    claimed: Counter,
    settled: Counter,
    retried: Counter,
    buried: Counter,
    released: Counter,
    fenced: Counter,
    store_failures: Counter,
    store_up: Gauge,
    claim_seconds: Histogram,
    settle_seconds: Histogram,
}

impl MetricsObserver {
    /// Writes to the recorder that is installed now; without one, to nowhere.
    pub fn new() -> Self {
        describe();
        let store_up = gauge!("pillarbox_store_up");
        store_up.set(1);
        let of = |name: &'static str| {
            let counter = counter!(name);
            counter.absolute(0);
            counter
        };
        Self {
            claims: of("pillarbox_claims_total"),
            claimed: of("pillarbox_claimed_messages_total"),
            settled: of("pillarbox_settled_messages_total"),
            retried: of("pillarbox_retried_messages_total"),
            buried: of("pillarbox_buried_messages_total"),
            released: of("pillarbox_released_messages_total"),
            fenced: of("pillarbox_fenced_runs_total"),
            store_failures: of("pillarbox_store_failures_total"),
            store_up,
            claim_seconds: histogram!("pillarbox_claim_seconds"),
            settle_seconds: histogram!("pillarbox_settle_seconds"),
        }
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for MetricsObserver {
    fn observe(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::Claimed { messages, buried, took, .. } => {
                self.claims.increment(1);
                self.claimed.increment(u64::from(messages));
                self.buried.increment(u64::from(buried));
                self.claim_seconds.record(took);
            }
            Observation::Published { destination, confirmed, failed, took } => {
                let label = label(destination);
                counter!("pillarbox_confirmed_messages_total", "destination" => label.clone())
                    .increment(u64::from(confirmed));
                counter!("pillarbox_failed_sends_total", "destination" => label.clone())
                    .increment(u64::from(failed));
                histogram!("pillarbox_publish_seconds", "destination" => label).record(took);
            }
            Observation::Retried { .. } => self.retried.increment(1),
            Observation::Buried { .. } => self.buried.increment(1),
            Observation::Released { messages } => self.released.increment(u64::from(messages)),
            Observation::Settled { published, took } => {
                self.settled.increment(u64::from(published));
                self.settle_seconds.record(took);
            }
            Observation::Fenced { .. } => self.fenced.increment(1),
            Observation::CutOff { destination } => {
                counter!("pillarbox_cut_off_publishes_total", "destination" => label(destination))
                    .increment(1);
            }
            Observation::Paused { destination, .. } => {
                gauge!("pillarbox_destination_up", "destination" => label(destination)).set(0);
            }
            Observation::Resumed { destination } => {
                gauge!("pillarbox_destination_up", "destination" => label(destination)).set(1);
            }
            Observation::StoreFailed { .. } => {
                self.store_failures.increment(1);
                self.store_up.set(0);
            }
            Observation::StoreRecovered => self.store_up.set(1),
            _ => {}
        }
    }
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MetricsObserver")
    }
}

fn label(destination: Destination) -> String {
    destination.0.to_string()
}

fn describe() {
    for (name, text) in [
        ("pillarbox_claims_total", "Claims that the store answered"),
        ("pillarbox_claimed_messages_total", "Messages that claims brought"),
        ("pillarbox_confirmed_messages_total", "Messages that the broker confirmed"),
        ("pillarbox_failed_sends_total", "Messages that the broker did not confirm"),
        ("pillarbox_settled_messages_total", "Messages that are published and settled for good"),
        ("pillarbox_retried_messages_total", "Messages that are tried again after a failed send"),
        ("pillarbox_buried_messages_total", "Messages that were given up: dead letters"),
        ("pillarbox_released_messages_total", "Messages that were given back untouched"),
        ("pillarbox_fenced_runs_total", "Leases that were lost to another relay"),
        ("pillarbox_store_failures_total", "Calls of the store that failed"),
        ("pillarbox_cut_off_publishes_total", "Publishes that took too long and were cut off"),
    ] {
        describe_counter!(name, text);
    }
    describe_gauge!("pillarbox_store_up", "Whether the store answered last");
    describe_gauge!("pillarbox_destination_up", "Whether the destination answered last");
    for (name, text) in [
        ("pillarbox_claim_seconds", "How long claims took"),
        ("pillarbox_settle_seconds", "How long settles took"),
        ("pillarbox_publish_seconds", "How long publishes took"),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
}
