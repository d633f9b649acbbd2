//! A relay whose broker is killed, paused and restarted in the middle of its batches.
//!
//! The [cases](super::cases) look at single publishes. This runs the relay itself over the transport, on any storage, and counts as
//! Jepsen's total-queue checker does: nothing may be lost, the first deliveries of a key come in order, and no attempt is charged,
//! since an outage is no message's fault.
//!
//! ```no_run
//! # use pillarbox_core::{Error, Message, Storage, Transport};
//! # use pillarbox_testkit::servers::RedisServer;
//! # use pillarbox_testkit::transport::{BoxError, Received, outages::Outages};
//! # async fn shown(
//! #     storage: impl Storage, transport: impl Transport, server: RedisServer,
//! #     enqueue: impl AsyncFn(&[Message]) -> Result<(), Error>, received: Vec<Received>,
//! # ) -> Result<(), BoxError> {
//! let relayed = Outages::new(&server, "orders.created").run(storage, transport, enqueue).await?;
//! let totals = relayed.totals(&received);
//! println!("{totals}");
//! totals.assert_nothing_is_lost();
//! # Ok(())
//! # }
//! ```

mod relayed;
mod strike;
mod watch;

pub use relayed::{Relayed, Totals};

use super::BoxError;
use crate::clock::Clock;
use crate::servers::{KafkaServer, NatsServer, RedisServer, ServerError};
use futures_timer::Delay;
use futures_util::future::{Either, select};
use pillarbox_core::{
    Backoff, Error, Message, MessageId, Relay, RelayConfig, Storage, Text, Timestamp, Transport,
};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strike::{Striking, Target};
use watch::Watch;

/// A broker that can be harmed. Calls may block.
pub trait Broker: Send + Sync {
    /// As SIGKILL does: connections break, new ones are refused, and what was confirmed is kept.
    ///
    /// # Errors
    /// Whatever stops it; the run ends with it.
    fn kill(&self) -> Result<(), BoxError>;

    /// Starts it at the same address; one that runs is killed before.
    ///
    /// # Errors
    /// Whatever stops it; the run ends with it.
    fn restart(&self) -> Result<(), BoxError>;

    /// As SIGSTOP does: connections stay, and nothing is answered.
    ///
    /// # Errors
    /// Whatever stops it; the run ends with it.
    fn pause(&self) -> Result<(), BoxError>;

    /// Ends a pause.
    ///
    /// # Errors
    /// Whatever stops it; the run ends with it.
    fn resume(&self) -> Result<(), BoxError>;
}

/// What happens to the broker, in this order, in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Killed, and started again when the relay has noticed.
    Kill,
    /// Paused, until the relay has noticed and nothing is on its way any more.
    Pause,
    /// Killed and started again at once.
    Restart,
}

/// So many messages are enqueued before each harm.
const MESSAGES: u32 = 600;

/// So many ordering keys; a fifth of the messages has none.
const KEYS: u32 = 20;

/// Whoever waits longer waits in vain.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at how far the relay is.
const LOOK: Duration = Duration::from_millis(5);

/// How a broker is harmed under a relay.
#[derive(Clone, Copy, Debug)]
pub struct Outages<'a, B> {
    broker: &'a B,
    topic: &'a str,
    rounds: u32,
}

impl<'a, B: Broker> Outages<'a, B> {
    /// Of this broker, with messages to this topic.
    pub fn new(broker: &'a B, topic: &'a str) -> Self {
        Self { broker, topic, rounds: 1 }
    }

    /// How often the broker is killed, paused and restarted. Default 1.
    #[must_use]
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Runs a relay until everything that was enqueued is settled. Connect the transport with short timeouts: a broker that is
    /// paused is waited for as long.
    ///
    /// # Errors
    /// What stopped the broker or the storage, a relay that ended, or what did not happen within a minute.
    pub async fn run(
        self,
        storage: impl Storage,
        transport: impl Transport,
        enqueue: impl AsyncFn(&[Message]) -> Result<(), Error>,
    ) -> Result<Relayed, BoxError> {
        let (watch, target) = (Arc::new(Watch::default()), Arc::new(Target::default()));
        let config = RelayConfig::default()
            .lease(LIMIT)
            .pause(Backoff::new(Duration::from_millis(50), Duration::from_millis(300)));
        let striking = Striking { inner: transport, broker: self.broker, target: target.clone() };
        let relay = Relay::new(storage, striking, config)?.observer(watch.clone()).timer(Clock::new());
        let mut script = Script { outages: self, watch, target, messages: Vec::new() };
        let played = match select(pin!(relay.run(std::future::pending())), pin!(script.play(&enqueue))).await
        {
            Either::Left((Err(error), _)) => Err(error.into()),
            Either::Left((Ok(()), _)) => Err("the relay ended by itself".into()),
            Either::Right((played, _)) => played,
        };
        played.map(|()| Relayed::new(&script.messages, &script.watch, script.target.strikes()))
    }
}

struct Script<'a, B> {
    outages: Outages<'a, B>,
    watch: Arc<Watch>,
    target: Arc<Target>,
    messages: Vec<Message>,
}

impl<B: Broker> Script<'_, B> {
    async fn play(
        &mut self,
        enqueue: &impl AsyncFn(&[Message]) -> Result<(), Error>,
    ) -> Result<(), BoxError> {
        let harms = [Harm::Kill, Harm::Pause, Harm::Restart];
        for (number, harm) in (0..self.outages.rounds).flat_map(|_| harms).enumerate() {
            let (pauses, strikes) = (self.watch.pauses(), self.target.strikes());
            // At different places of a publish, of which the first poll only begins it.
            self.target.aim(harm, 2 + u32::try_from(number % 3)?);
            self.feed(enqueue, "the broker is harmed", |script| script.target.strikes() > strikes).await?;
            match harm {
                Harm::Kill => {
                    self.feed(enqueue, "the kill is noticed", |script| script.watch.pauses() > pauses)
                        .await?;
                    self.outages.broker.restart()?;
                }
                Harm::Pause => {
                    self.feed(enqueue, "the pause is noticed", |script| {
                        script.watch.pauses() > pauses && script.target.on_their_way() == 0
                    })
                    .await?;
                    self.outages.broker.resume()?;
                }
                Harm::Restart => {}
            }
            self.until("everything is settled", Self::is_settled).await?;
        }
        Ok(())
    }

    /// Enqueues until it is so, always when everything is settled: without messages nothing happens, and nothing is noticed.
    async fn feed(
        &mut self,
        enqueue: &impl AsyncFn(&[Message]) -> Result<(), Error>,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), BoxError> {
        while !holds(self) {
            if self.is_settled() {
                self.enqueue(enqueue).await?;
            }
            self.until(what, |script| holds(script) || script.is_settled()).await?;
        }
        Ok(())
    }

    async fn enqueue(
        &mut self,
        enqueue: &impl AsyncFn(&[Message]) -> Result<(), Error>,
    ) -> Result<(), BoxError> {
        let begin = u32::try_from(self.messages.len())?;
        for number in begin..begin + MESSAGES {
            self.messages.push(message(self.outages.topic, number)?);
        }
        for some in self.messages[begin as usize..].chunks(100) {
            enqueue(some).await?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.watch.settled() as usize == self.messages.len()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), BoxError> {
        let begin = Instant::now();
        while !holds(self) {
            if let Some(failure) = self.target.failure() {
                return Err(failure);
            }
            if begin.elapsed() > LIMIT {
                return Err(format!("waited in vain until {what}: {:?}", self.watch).into());
            }
            Delay::new(LOOK).await;
        }
        Ok(())
    }
}

fn message(topic: &str, number: u32) -> Result<Message, Error> {
    let mut id = [0x71; 16];
    id[12..].copy_from_slice(&number.to_be_bytes());
    let created_at = Timestamp::from_millis(1_700_000_000_000 + i64::from(number));
    let message = Message::given(MessageId::from_bytes(id), created_at, Text::from(topic.to_owned()));
    let message =
        if number.is_multiple_of(5) { message } else { message.key(format!("key-{}", number % KEYS)) };
    Ok(message.payload(number.to_string())?)
}

/// The servers of the kit whose own methods are these.
macro_rules! brokers {
    ($($server:ty),*) => {$(
        impl Broker for $server {
            fn kill(&self) -> Result<(), BoxError> {
                <$server>::kill(self);
                Ok(())
            }

            fn restart(&self) -> Result<(), BoxError> {
                <$server>::restart(self).map_err(boxed)
            }

            fn pause(&self) -> Result<(), BoxError> {
                <$server>::pause(self).map_err(boxed)
            }

            fn resume(&self) -> Result<(), BoxError> {
                <$server>::resume(self).map_err(boxed)
            }
        }
    )*};
}

brokers!(KafkaServer, NatsServer, RedisServer);

fn boxed(error: ServerError) -> BoxError {
    error.into()
}
