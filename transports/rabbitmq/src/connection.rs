use crate::RabbitMqConfig;
use crate::channel::{ConfirmChannel, IdleChannels};
use crate::error::{Operation, describe};
use futures_util::future::BoxFuture;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::tcp::{AMQPUriTcpExt, TLSConfig};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use pillarbox_core::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

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

struct Attempt {
    began: Instant,
    connecting: BoxFuture<'static, Result<Live, Error>>,
}

/// A connection that was alive a moment ago, with its channels.
pub(crate) struct Live {
    connection: Connection,
    pub(crate) channels: IdleChannels,
    /// It hangs: who needs a connection makes another one.
    stale: AtomicBool,
}

impl Live {
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
        self.is_connected() && !self.stale.load(Ordering::Relaxed)
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

    /// The connection, made if there is none. Who waited while another caller's attempt failed gets that failure, so that
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
        let old = |attempt: &Attempt| attempt.began.elapsed() > ATTEMPT_AT_MOST;
        if state.attempt.as_ref().is_none_or(old) {
            let connecting = Box::pin(connect(config.clone()));
            state.attempt = Some(Attempt { began: Instant::now(), connecting });
        }
        let Some(attempt) = &mut state.attempt else { return Err(no_answer(config)) };
        let made = timeout(config.connect_timeout, &mut attempt.connecting).await;
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

    /// A round trip on a channel of its own, which asks for the exchange where one is named.
    pub(crate) async fn ask(&self, operation: Operation) -> Result<(), Error> {
        let live = self.live(operation).await?;
        if live.is_blocked() {
            return Err(blocked(operation, &self.config).not_applied());
        }
        let exchange = self.config.exchange.as_str();
        let round_trip = async {
            let channel = live.connection.create_channel().await?;
            if !exchange.is_empty() {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                // A passive declaration looks at the name alone.
                let kind = ExchangeKind::Direct;
                channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await?;
            }
            channel.close(200, "done".into()).await
        };
        self.in_time(&live, operation, round_trip).await.map_err(Error::not_applied)
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

async fn connect(config: Arc<RabbitMqConfig>) -> Result<Live, Error> {
    let made = async {
        let properties = ConnectionProperties::default().with_connection_name("pillarbox".into());
        let runtime = lapin::runtime::default_runtime()?;
        let patience = config.connect_timeout;
        // The client itself would wait for as long as the operating system does.
        let dial = async move |uri: lapin::uri::AMQPUri, runtime| {
            let dialled = uri.connect_with_config_async(TLSConfig::default(), &runtime);
            match timeout(patience, dialled).await {
                Ok(stream) => Ok(stream?),
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        };
        let connection = Connection::connector(config.uri.clone(), runtime, dial, properties).await?;
        if let Some(kind) = &config.declare {
            let channel = connection.create_channel().await?;
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let exchange = config.exchange.as_str().into();
            channel.exchange_declare(exchange, kind.clone(), options, FieldTable::default()).await?;
            channel.close(200, "done".into()).await?;
        }
        Ok(Live { connection, channels: IdleChannels::default(), stale: AtomicBool::new(false) })
    };
    made.await
        .map_err(|error: lapin::Error| describe(&error, Operation::Open, &config.address()).not_applied())
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
