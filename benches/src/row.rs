use serde::Serialize;
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Messages are enqueued, a batch in each transaction.
    Enqueue,
    /// A filled outbox is drained: claimed, published to nowhere, settled.
    Drain,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The storage.
    pub storage: &'static str,
    /// What it did.
    pub work: Work,
    /// How the messages are keyed.
    pub case: &'static str,
    /// How many relays, or producers, ran side by side.
    pub relays: u32,
    /// How many messages a claim, or a transaction, has.
    pub batch: u32,
    /// What the floor is.
    pub floor: &'static str,
    /// Messages a second of the floor.
    pub floor_per_s: u64,
    /// Messages a second of the outbox, through real relays.
    pub ours_per_s: u64,
    /// `ours_per_s` in parts of `floor_per_s`.
    pub ratio: f64,
    /// Messages a second of claiming and settling in a plain loop, one claim at a time; drains only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loop_per_s: Option<u64>,
    /// Microseconds of the server's processor for each message, in that loop; drains only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_us: Option<f64>,
    /// The same for the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_server_us: Option<f64>,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far below 2^63"
)]
pub(crate) fn per_second(messages: u32, took: Duration) -> u64 {
    (f64::from(messages) / took.as_secs_f64()).round() as u64
}

pub(crate) fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
