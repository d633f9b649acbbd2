use serde::Serialize;
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Messages are enqueued, a batch in each transaction.
    Enqueue,
    /// Messages are enqueued, each in a transaction with a write of business data; 32 producers unless said otherwise.
    Transaction,
    /// A filled outbox is drained: claimed, published to nowhere, settled.
    Drain,
    /// A relay waits, and one message after the other comes.
    Latency,
    /// Messages of a store that does nothing are relayed into a real broker.
    #[value(skip)]
    Publish,
}

impl Work {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Transaction => "transaction",
            Self::Drain => "drain",
            Self::Latency => "latency",
            Self::Publish => "publish",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The storage.
    pub storage: &'static str,
    /// The transport.
    pub transport: String,
    /// What they did.
    pub work: Work,
    /// How the messages are keyed.
    pub case: String,
    /// Of 100 sends, how many the broker refused.
    pub failing_percent: u32,
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
    /// Microseconds of the server's processor for each message; in drains those of the plain loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_us: Option<f64>,
    /// The same for the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_server_us: Option<f64>,
    /// Microseconds of this process's processor for each message, through real relays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_us: Option<f64>,
    /// The same for the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_client_us: Option<f64>,
    /// Bytes that the store takes for each message that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
    /// Milliseconds that half of the messages stayed under: in stores from the begin of the enqueueing transaction to the publish through a
    /// relay that waits, in transports from the publish of a single message to its confirmation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// The same for 99 of 100 messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// The median that the floor takes: in stores the enqueueing transaction itself, which `p50_ms` includes, in transports the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_p50_ms: Option<f64>,
    /// Milliseconds in the median from the end of the enqueueing transaction to the publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_p50_ms: Option<f64>,
    /// The same for 99 of 100 messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_p99_ms: Option<f64>,
}

impl Row {
    /// A row without its figures.
    pub(crate) fn new(storage: &'static str, work: Work, relays: u32, batch: u32) -> Self {
        Self {
            storage,
            transport: "nowhere".to_owned(),
            work,
            case: "unkeyed".to_owned(),
            failing_percent: 0,
            relays,
            batch,
            floor: "",
            floor_per_s: 0,
            ours_per_s: 0,
            ratio: 0.0,
            loop_per_s: None,
            server_us: None,
            floor_server_us: None,
            client_us: None,
            floor_client_us: None,
            bytes: None,
            p50_ms: None,
            p99_ms: None,
            floor_p50_ms: None,
            wake_p50_ms: None,
            wake_p99_ms: None,
        }
    }

    /// Enters both rates and their ratio.
    pub(crate) fn rates(&mut self, floor_per_s: u64, ours_per_s: u64) {
        (self.floor_per_s, self.ours_per_s) = (floor_per_s, ours_per_s);
        #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let ratio = ours_per_s as f64 / floor_per_s.max(1) as f64;
        self.ratio = hundredths(ratio);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far below 2^63"
)]
pub(crate) fn per_second(messages: u32, took: Duration) -> u64 {
    (f64::from(messages) / took.as_secs_f64()).round() as u64
}

/// Microseconds of `used` for each of the messages.
pub(crate) fn micros_each(used: Duration, messages: u32) -> f64 {
    hundredths(used.as_secs_f64() * 1e6 / f64::from(messages))
}

pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

pub(crate) fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
