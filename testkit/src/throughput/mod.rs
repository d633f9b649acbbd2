//! How fast a relay publishes through a transport, beside the client that the transport stands on.
//!
//! The storage does nothing, so that relay and transport are what is measured. The client publishes the same messages in batches of
//! the same size, and waits for the confirmations of a batch before it begins the next one; it may have several batches on their
//! way, as a relay has, and the faster of both ways is what the relay is compared with. Rounds alternate, and medians count.
//!
//! ```no_run
//! # use pillarbox_core::{Message, Transport};
//! # use pillarbox_testkit::throughput::{Comparison, BoxError};
//! # async fn shown(transport: impl Transport + Clone, make: impl Fn() -> Result<Vec<Message>, BoxError>) -> Result<(), BoxError> {
//! let publish_with_client = async |batches: usize, messages: &[Message]| Ok(());
//! let comparison = Comparison { transport, client: publish_with_client, clear: async || Ok(()) };
//! println!("{}", Comparison::HEADER);
//! println!("{}", comparison.row("unkeyed", make).await?);
//! # Ok(())
//! # }
//! ```

mod supply;

pub use crate::storage::BoxError;
pub use supply::Supply;

use pillarbox_core::{Message, Transport};
use std::fmt;
use std::time::{Duration, Instant};

/// How many messages a batch has, of the client's and of the relay's.
pub const BATCH: usize = 500;

/// How many batches are on their way at once, as a relay has them by default.
pub const BATCHES: usize = 4;

const ROUNDS: usize = 7;

/// A transport and the client that it stands on.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<T, C, D> {
    /// The transport.
    pub transport: T,
    /// Publishes messages with the client alone, so many batches at once.
    pub client: C,
    /// Takes away what was published.
    pub clear: D,
}

impl Comparison<(), (), ()> {
    /// Above the rows.
    pub const HEADER: &'static str = "case          client/s   4 batches/s   relay/s   ratio";
}

impl<T, C, D> Comparison<T, C, D>
where
    T: Transport + Clone,
    C: AsyncFn(usize, &[Message]) -> Result<(), BoxError>,
    D: AsyncFn() -> Result<(), BoxError>,
{
    /// Measures one case. `make` makes the messages of each measurement.
    ///
    /// # Errors
    /// What the client or the relay met, and a message that was not confirmed.
    pub async fn row(
        &self,
        case: &str,
        make: impl Fn() -> Result<Vec<Message>, BoxError>,
    ) -> Result<Row, BoxError> {
        let (mut single, mut several, mut relayed) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let rates = [self.client_alone(1, make()?).await?, self.client_alone(BATCHES, make()?).await?];
            let messages = make()?;
            let count = messages.len();
            let supply = Supply::new(messages)?;
            let began = Instant::now();
            supply.relay(self.transport.clone()).await?;
            let own = per_second(count, began.elapsed());
            (self.clear)().await?;
            // The first round warms up.
            if round > 0 {
                single.push(rates[0]);
                several.push(rates[1]);
                relayed.push(own);
            }
        }
        Ok(Row {
            case: case.to_owned(),
            single: median(single),
            several: median(several),
            relayed: median(relayed),
        })
    }

    async fn client_alone(&self, batches: usize, messages: Vec<Message>) -> Result<f64, BoxError> {
        let began = Instant::now();
        (self.client)(batches, &messages).await?;
        let rate = per_second(messages.len(), began.elapsed());
        (self.clear)().await?;
        Ok(rate)
    }
}

/// Messages per second of one case: medians.
#[derive(Clone, Debug)]
pub struct Row {
    case: String,
    single: f64,
    several: f64,
    relayed: f64,
}

impl Row {
    /// The relay's rate in relation to the client's, the faster one.
    pub fn ratio(&self) -> f64 {
        self.relayed / self.single.max(self.several)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, single, several, relayed } = self;
        let ratio = self.ratio();
        write!(formatter, "{case:<12} {single:>9.0} {several:>13.0} {relayed:>9.0} {ratio:>7.2}")
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
