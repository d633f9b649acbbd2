//! How fast a relay publishes through a transport, beside the client that the transport stands on.
//!
//! The storage does nothing, so that relay and transport are what is measured. The client publishes the same messages in batches of
//! the same size, and waits for the confirmations of a batch before it begins the next one; it may have several batches on their
//! way, as a relay has, and the faster of both ways is what the relay is compared with. Rounds alternate, and medians count.
//!
//! ```no_run
//! # use pillarbox_core::{Message, Outcomes, Transport};
//! # use pillarbox_testkit::throughput::{BoxError, Case, Comparison};
//! # async fn shown(transport: impl Transport + Clone) -> Result<(), BoxError> {
//! let publish_with_client = async |batches: usize, messages: &[Message]| Ok(());
//! let comparison =
//!     Comparison { topic: "orders", transport, client: publish_with_client, clear: async || Ok(()), server: None };
//! comparison.print("my-broker", &[Case::UNKEYED, Case::keys(100)]).await?;
//! # Ok(())
//! # }
//! ```

pub mod processor;
mod row;
mod supply;

pub use crate::storage::BoxError;
pub use row::{Row, below};
pub use supply::Supply;

use pillarbox_core::{Message, Outcomes, Transport};
use processor::Cost;
use row::Rounds;
use std::time::Instant;

/// How many messages a batch has, of the client's and of the relay's.
pub const BATCH: usize = 500;

/// How many batches are on their way at once, as a relay has them by default.
pub const BATCHES: usize = 4;

/// How many messages a case has where it does not say otherwise.
const MESSAGES: usize = 10_000;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 7;
/// How many messages are sent alone, for the time that one takes.
const SENT_ALONE: usize = 300;

/// How the messages of a measurement are keyed, and how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    keys: usize,
    messages: usize,
}

impl Case {
    /// Messages without a key.
    pub const UNKEYED: Self = Self::keys(0);

    /// So many keys, in turn.
    #[must_use]
    pub const fn keys(keys: usize) -> Self {
        Self { keys, messages: MESSAGES }
    }

    /// So many messages, where the 10,000 that a case has otherwise take too long: with one key a transport may need a round trip for
    /// each.
    #[must_use]
    pub const fn messages(self, messages: usize) -> Self {
        Self { messages, ..self }
    }

    fn name(self) -> String {
        match self.keys {
            0 => "unkeyed".to_owned(),
            1 => "key-1".to_owned(),
            keys => format!("keys-{keys}"),
        }
    }

    /// New ones, with ids that no broker has seen.
    fn make(self, topic: &str) -> Result<Vec<Message>, BoxError> {
        let message = |number: usize| {
            let message = Message::to(topic);
            let message =
                if self.keys == 0 { message } else { message.key(format!("key-{}", number % self.keys)) };
            message.payload(vec![b'x'; PAYLOAD])
        };
        Ok((0..self.messages).map(message).collect::<Result<_, _>>()?)
    }
}

/// A transport and the client that it stands on.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a, T, C, D> {
    /// Where the messages go.
    pub topic: &'a str,
    /// The transport.
    pub transport: T,
    /// Publishes messages with the client alone, so many batches at once.
    pub client: C,
    /// Takes away what was published.
    pub clear: D,
    /// The process of the broker, where its use of the processor is to be told.
    pub server: Option<u32>,
}

impl<T, C, D> Comparison<'_, T, C, D>
where
    T: Transport + Clone,
    C: AsyncFn(usize, &[Message]) -> Result<(), BoxError>,
    D: AsyncFn() -> Result<(), BoxError>,
{
    /// Measures the cases and prints a line for each: a table, or JSON objects if the program was started with `--json`.
    ///
    /// # Errors
    /// As [`row`](Self::row).
    pub async fn print(&self, name: &str, cases: &[Case]) -> Result<(), BoxError> {
        let json = std::env::args().any(|argument| argument == "--json");
        if !json {
            println!("{}", Row::HEADER);
        }
        for case in cases {
            let row = self.row(name, *case).await?;
            if json { println!("{}", row.json()) } else { println!("{row}") }
        }
        Ok(())
    }

    /// Measures one case.
    ///
    /// # Errors
    /// What the client or the relay met, and a message that was not confirmed.
    pub async fn row(&self, name: &str, case: Case) -> Result<Row, BoxError> {
        let mut rounds = Rounds::default();
        for round in 0..=ROUNDS {
            let single = self.client_alone(1, case).await?;
            let several = self.client_alone(BATCHES, case).await?;
            let supply = Supply::new(case.make(self.topic)?)?;
            let relayed = self.cost(supply.relay(self.transport.clone())).await?;
            // The first round warms up.
            if round > 0 {
                rounds.add(single, several, relayed);
            }
        }
        self.send_alone(case, &mut rounds).await?;
        Ok(rounds.row(name, case.name(), case.messages))
    }

    /// Sends one message after the other, each alone, by the client and by the transport in turn.
    async fn send_alone(&self, case: Case, rounds: &mut Rounds) -> Result<(), BoxError> {
        let messages = Case { messages: SENT_ALONE, ..case }.make(self.topic)?;
        let mut outcomes = Outcomes::new();
        for pair in messages.chunks_exact(2) {
            let (first, second) = pair.split_at(1);
            let begun = Instant::now();
            (self.client)(1, first).await?;
            let client = begun.elapsed();
            outcomes.reset(1);
            let begun = Instant::now();
            self.transport.publish(second, &mut outcomes).await;
            rounds.add_alone(client, begun.elapsed());
            outcomes.take(0).ok_or("a message has no outcome")??;
        }
        (self.clear)().await
    }

    async fn client_alone(&self, batches: usize, case: Case) -> Result<Cost, BoxError> {
        let messages = case.make(self.topic)?;
        self.cost((self.client)(batches, &messages)).await
    }

    async fn cost(&self, work: impl Future<Output = Result<(), BoxError>>) -> Result<Cost, BoxError> {
        let cost = processor::cost(self.server, work).await?;
        (self.clear)().await?;
        Ok(cost)
    }
}
