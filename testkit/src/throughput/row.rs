use super::processor::Cost;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What one case took, in medians.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The transport.
    pub transport: String,
    /// How the messages were keyed.
    pub case: String,
    /// Messages a second of the client with one batch at once.
    pub client_per_s: f64,
    /// Messages a second of the client with as many batches at once as a relay has.
    pub client_batches_per_s: f64,
    /// Messages a second of the relay.
    pub relay_per_s: f64,
    /// The relay's rate in parts of the client's, the faster one.
    pub ratio: f64,
    /// Microseconds of the broker's processor for each message of the relay.
    pub server_us: Option<f64>,
    /// The same for the client with several batches at once.
    pub client_server_us: Option<f64>,
    /// Microseconds of this process's processor for each message of the relay.
    pub relay_us: f64,
    /// The same for the client with several batches at once.
    pub client_us: f64,
    /// Milliseconds from the publish of a single message by the transport to its confirmation, which half of the messages stayed under.
    pub p50_ms: f64,
    /// The same for 99 of 100 messages.
    pub p99_ms: f64,
    /// The median for the client alone.
    pub client_p50_ms: f64,
}

impl Row {
    /// Above the rows.
    pub const HEADER: &'static str = "case          client/s   4 batches/s   relay/s   ratio   broker us (client's)   relay us (client's)   p50 ms (client's)   p99 ms";

    /// As a line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Numbers and text: nothing that JSON has no word for.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, client_per_s, client_batches_per_s, relay_per_s, ratio, .. } = self;
        write!(
            formatter,
            "{case:<12} {client_per_s:>9.0} {client_batches_per_s:>13.0} {relay_per_s:>9.0} {ratio:>7.2}"
        )?;
        let server = match (self.server_us, self.client_server_us) {
            (Some(relay), Some(client)) => format!("{relay:.2} ({client:.2})"),
            _ => "-".to_owned(),
        };
        let client = format!("{:.2} ({:.2})", self.relay_us, self.client_us);
        let alone = format!("{:.2} ({:.2})", self.p50_ms, self.client_p50_ms);
        write!(formatter, " {server:>22} {client:>21} {alone:>19} {:>8.2}", self.p99_ms)
    }
}

/// All measurements of one case.
#[derive(Default)]
pub(super) struct Rounds {
    single: Vec<Cost>,
    several: Vec<Cost>,
    relayed: Vec<Cost>,
    client_alone: Vec<Duration>,
    transport_alone: Vec<Duration>,
}

impl Rounds {
    pub(super) fn add_alone(&mut self, client: Duration, transport: Duration) {
        self.client_alone.push(client);
        self.transport_alone.push(transport);
    }

    pub(super) fn add(&mut self, single: Cost, several: Cost, relayed: Cost) {
        self.single.push(single);
        self.several.push(several);
        self.relayed.push(relayed);
    }

    pub(super) fn row(&self, transport: &str, case: String, messages: usize) -> Row {
        #[allow(clippy::cast_precision_loss, reason = "a count of messages")]
        let messages = messages as f64;
        let rate = |costs: &[Cost]| messages / median(costs, |cost| cost.took).as_secs_f64();
        let each = |used: Duration| used.as_secs_f64() * 1e6 / messages;
        let server = |costs: &[Cost]| {
            costs
                .iter()
                .all(|cost| cost.server.is_some())
                .then(|| each(median(costs, |cost| cost.server.unwrap_or_default())))
        };
        let (client_per_s, client_batches_per_s) = (rate(&self.single), rate(&self.several));
        let relay_per_s = rate(&self.relayed);
        Row {
            transport: transport.to_owned(),
            case,
            client_per_s,
            client_batches_per_s,
            relay_per_s,
            ratio: relay_per_s / client_per_s.max(client_batches_per_s),
            server_us: server(&self.relayed),
            client_server_us: server(&self.several),
            relay_us: each(median(&self.relayed, |cost| cost.client)),
            client_us: each(median(&self.several, |cost| cost.client)),
            p50_ms: millis(&self.transport_alone, 50),
            p99_ms: millis(&self.transport_alone, 99),
            client_p50_ms: millis(&self.client_alone, 50),
        }
    }
}

fn median(costs: &[Cost], figure: impl Fn(&Cost) -> Duration) -> Duration {
    below(50, costs.iter().map(figure))
}

fn millis(times: &[Duration], of_hundred: usize) -> f64 {
    below(of_hundred, times.iter().copied()).as_secs_f64() * 1e3
}

/// The time that so many of a hundred stayed under; zero if there are none.
#[must_use]
pub fn below(of_hundred: usize, times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() * of_hundred / 100).copied().unwrap_or_default()
}
