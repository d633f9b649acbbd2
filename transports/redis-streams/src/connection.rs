//! One shared connection, made when it is first needed and again when it broke.

use crate::config::{RedisStreamsConfig, misconfigured};
use crate::error::{self, Failure, Operation};
use pillarbox_core::Error;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Makes the connection, and hands it to every publish. Dropping a call's future harms no other call.
pub(crate) struct Connector {
    config: RedisStreamsConfig,
    state: Mutex<State>,
    /// Counts finished attempts, so that who waited for one gets its failure.
    attempts: AtomicU64,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    failure: Option<Arc<RedisError>>,
    /// Counts the links, so that only the one that broke is dropped.
    generation: u64,
}

/// A connection that lived when it was handed out.
#[derive(Clone)]
pub(crate) struct Link {
    connection: MultiplexedConnection,
    generation: u64,
}

impl Connector {
    pub(crate) fn new(config: RedisStreamsConfig) -> Self {
        Self { config, state: Mutex::default(), attempts: AtomicU64::new(0) }
    }

    pub(crate) fn config(&self) -> &RedisStreamsConfig {
        &self.config
    }

    /// The connection, made if there is none. Who waited while another caller's attempt failed gets that failure, so that
    /// attempts do not queue up.
    pub(crate) async fn link(&self, operation: Operation) -> Result<Link, Error> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        let place = self.config.place();
        if let Some(failure) = state.failure.as_ref().filter(|_| self.attempts.load(Ordering::Acquire) > seen)
        {
            return Err(error::describe(Failure::Connect((**failure).clone()), operation, &place));
        }
        let made = self.connect().await;
        self.attempts.fetch_add(1, Ordering::Release);
        match made {
            Ok(connection) => {
                state.generation += 1;
                let link = Link { connection, generation: state.generation };
                state.failure = None;
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(failure) => {
                state.failure = Some(Arc::new(failure.clone()));
                Err(error::describe(Failure::Connect(failure), operation, &place))
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        provide_cryptography();
        let client = Client::open(self.config.server.clone())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.confirm_timeout));
        // Boxed, since the client's futures are deep. The login is part of it, and has no limit of its own.
        let connecting = Box::pin(client.get_multiplexed_async_connection_with_config(&config));
        timeout(self.config.connect_timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// The answers of all commands of a pipeline, errors among them.
    pub(crate) async fn run(&self, link: &Link, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let result = link.connection.clone().req_packed_commands(pipeline, 0, pipeline.len()).await;
        if let Ok(answers) = &result
            && answers.iter().any(
                |answer| matches!(answer, Value::ServerError(error) if error.kind().is_some_and(is_demotion)),
            )
        {
            self.give_up(link).await;
        }
        self.examined(link, result).await
    }

    /// The answer of one command that publishes nothing.
    pub(crate) async fn ask(&self, link: &Link, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = link.connection.clone();
        let asked = async { connection.req_packed_command(command).await.and_then(Value::extract_error) };
        // Below a relay's limit for a probe, so that it is told the reason.
        let result = timeout(self.config.connect_timeout, asked).await.unwrap_or_else(|_| Err(timed_out()));
        self.examined(link, result).await
    }

    /// Drops a link that can serve nobody any more; the next call makes a new one.
    async fn examined<T>(&self, link: &Link, result: Result<T, RedisError>) -> Result<T, RedisError> {
        if let Err(error) = &result
            && is_broken(error)
        {
            self.give_up(link).await;
        }
        result
    }

    async fn give_up(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.generation == link.generation {
            state.link = None;
        }
    }
}

/// A timeout counts too: the connection may be half open. So does a server that was demoted: behind its address another one may
/// take the writes now.
fn is_broken(error: &RedisError) -> bool {
    let demoted = matches!(error.kind(), ErrorKind::Server(kind) if is_demotion(kind));
    demoted || error.is_io_error() || error.is_unrecoverable_error()
}

fn is_demotion(kind: ServerErrorKind) -> bool {
    matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// TLS needs a provider of cryptography; one that the program has chosen stays.
fn provide_cryptography() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only if another thread was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// The text of an answer.
pub(crate) fn text(answer: Value) -> Result<String, Error> {
    redis::from_redis_value(answer)
        .map_err(|_| misconfigured("the server does not answer as Redis does".to_owned()))
}
