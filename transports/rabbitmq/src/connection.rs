use crate::RabbitMqConfig;
use crate::channel::{ConfirmChannel, IdleChannels};
use crate::dial::Attempt;
use crate::error::{Operation, describe};
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use pillarbox_core::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long one attempt to connect is continued by later callers before it is given up for a new one. A broker that accepts
/// and then hangs costs one attempt at a time that way, and not one per caller.
const ATTEMPT_AT_MOST: Duration = Duration::from_secs(60);

/// The connection, made again when it is lost, by one caller at a time.
pub(crate) struct Connector {
    config: Arc<RabbitMqConfig>,
    state: Mutex<State>,
    /// How many attempts to connect have ended.
    attempts: AtomicU64,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    attempt: Option<Attempt>,
    /// Why the last attempt failed, if it did.
    failure: Option<Error>,
}

/// A connection that was alive a moment ago, with its channels.
pub(crate) struct Live {
    connection: Connection,
    pub(crate) channels: IdleChannels,
    /// It hangs: who needs a connection makes another one.
    stale: AtomicBool,
}

impl Live {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, channels: IdleChannels::default(), stale: AtomicBool::new(false) }
    }

    /// Whether the broker holds publishers back: an alarm of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Whether the connection lives, as far as the client knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Lets later callers make another connection. This one lives on until its last user is done.
    pub(crate) fn give_up(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// The largest frame, in bytes.
    pub(crate) fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    fn is_usable(&self) -> bool {
        // Channels that were abandoned stay open as long as their connection, so it is left once that helps: while the broker
        // blocks publishers, another connection would only be blocked too.
        let is_left = !self.is_blocked() && self.channels.has_abandoned();
        self.is_connected() && !self.stale.load(Ordering::Relaxed) && !is_left
    }

    async fn open_channel(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }
}

impl Connector {
    pub(crate) fn new(config: RabbitMqConfig) -> Self {
        let state = Mutex::new(State::default());
        Self { config: Arc::new(config), state, attempts: AtomicU64::new(0) }
    }

    pub(crate) fn config(&self) -> &RabbitMqConfig {
        &self.config
    }

    /// The connection, made if there is none that can be used. Who waited while another caller's attempt failed gets that failure, so that
    /// attempts do not queue up.
    ///
    /// # Cancel safety
    /// The next caller continues an attempt that was dropped.
    pub(crate) async fn live(&self, operation: Operation) -> Result<Arc<Live>, Error> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(live) = state.live.as_ref().filter(|live| live.is_usable()) {
            return Ok(live.clone());
        }
        if let Some(failure) = state.failure.as_ref().filter(|_| self.attempts.load(Ordering::Acquire) > seen)
        {
            return Err(repeated(failure, operation));
        }
        state.live = None;
        let made = self.make(&mut state).await;
        self.attempts.fetch_add(1, Ordering::Release);
        match made {
            Ok(live) => {
                let live = Arc::new(live);
                state.live = Some(live.clone());
                state.failure = None;
                Ok(live)
            }
            Err(error) => {
                let told = repeated(&error, operation);
                state.failure = Some(error);
                Err(told)
            }
        }
    }

    async fn make(&self, state: &mut State) -> Result<Live, Error> {
        let config = &self.config;
        if state.attempt.as_ref().is_some_and(|attempt| attempt.age() > ATTEMPT_AT_MOST) {
            state.attempt = None;
        }
        let attempt = state.attempt.get_or_insert_with(|| Attempt::begin(config.clone()));
        let made = timeout(config.connect_timeout, attempt.end()).await;
        match made {
            Ok(made) => {
                state.attempt = None;
                made
            }
            // It stays, for the next caller.
            Err(_) => Err(no_answer(config)),
        }
    }

    /// A channel with nothing in flight, on a connection that lives. One publish has it for itself.
    pub(crate) async fn channel(&self, operation: Operation) -> Result<ConfirmChannel, Error> {
        let live = self.live(operation).await?;
        if live.is_blocked() {
            return Err(blocked(operation, &self.config).not_applied());
        }
        if let Some(channel) = live.channels.take() {
            return Ok(ConfirmChannel::new(live, channel));
        }
        let opened = self.in_time(&live, operation, live.open_channel()).await.map_err(Error::not_applied)?;
        Ok(ConfirmChannel::new(live, opened))
    }

    /// A round trip, which asks for the exchange where one is named. On a channel as a publish has it, so that it needs no
    /// further one where channels are few.
    pub(crate) async fn ask(&self, operation: Operation) -> Result<(), Error> {
        let channel = self.channel(operation).await?;
        // If the answer is not awaited, or closes the channel, nobody else has the channel after this.
        channel.begin(0);
        let exchange = self.config.exchange.as_str();
        let round_trip = async {
            if exchange.is_empty() {
                // It is in confirm mode already, and says so.
                return channel.channel().confirm_select(ConfirmSelectOptions::default()).await;
            }
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            // A passive declaration looks at the name alone.
            let kind = ExchangeKind::Direct;
            channel.channel().exchange_declare(exchange.into(), kind, options, FieldTable::default()).await
        };
        self.in_time(channel.live(), operation, round_trip).await.map_err(Error::not_applied)?;
        channel.landed();
        Ok(())
    }

    /// A request's answer; one that does not come in time gives the connection up, since it may hang until the operating system
    /// notices.
    async fn in_time<T>(
        &self,
        live: &Live,
        operation: Operation,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(self.config.connect_timeout, request).await {
            Ok(answer) => answer.map_err(|error| describe(&error, operation, &self.config.address())),
            Err(_) if live.is_blocked() => Err(blocked(operation, &self.config)),
            Err(_) => {
                live.give_up();
                Err(repeated(&no_answer(&self.config), operation))
            }
        }
    }
}

/// What a publisher is told while the broker holds publishers back.
pub(crate) fn blocked(operation: Operation, config: &RabbitMqConfig) -> Error {
    Error::new(ErrorKind::Unavailable, operation.name()).describe(format!(
        "RabbitMQ at {} blocks publishers: an alarm of memory or disk; `rabbitmqctl status` tells which",
        config.address()
    ))
}

fn no_answer(config: &RabbitMqConfig) -> Error {
    let (address, after) = (config.address(), config.connect_timeout);
    Error::new(ErrorKind::Unavailable, Operation::Open.name())
        .describe(format!(
            "RabbitMQ at {address} did not answer within {after:?} (`transport.connect_timeout`); is it running and reachable?"
        ))
        .not_applied()
}

/// The failure of an attempt, for one of those who wait for it.
fn repeated(failure: &Error, operation: Operation) -> Error {
    let told = Error::new(failure.kind(), operation.name()).not_applied();
    // The cause is not clonable, so its words are kept.
    match std::error::Error::source(failure) {
        Some(cause) => told.describe(format!("{}: {cause}", failure.description())),
        None => told.describe(failure.description().to_owned()),
    }
}
