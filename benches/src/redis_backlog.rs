use crate::BoxError;
use crate::growth::{message, now_in};
use pillarbox_redis::RedisStorage;
use pillarbox_testkit::servers::RedisServer;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use std::time::Duration;

const OUTBOX: &str = "backlog";
const ENQUEUED_AT_ONCE: u32 = 500;

/// A filled outbox in Redis, on a server of its own: so many messages pending, half of them on 10,000 ordering keys, and so
/// many scheduled that fell due at one moment.
pub struct RedisBacklog {
    server: RedisServer,
    connection: MultiplexedConnection,
}

/// What the server saw while a backlog was drained.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerCalls {
    /// Milliseconds of the call that blocked the server longest.
    pub slowest_ms: f64,
    /// Milliseconds that 999 of 1,000 of the calls stayed under: the slowest of all may just have waited for a processor.
    pub p999_ms: f64,
    /// Calls of a tenth of a millisecond or longer.
    pub calls: usize,
}

impl RedisBacklog {
    /// Starts the server and fills the outbox; `progress` is told how many messages were enqueued.
    ///
    /// # Errors
    /// If the server does not start, or does not take the messages.
    pub async fn fill(pending: u32, scheduled: u32, progress: impl Fn(usize)) -> Result<Self, BoxError> {
        let server = RedisServer::start()?;
        let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
        let mut backlog = Self { server, connection };
        let outbox = RedisStorage::open(&backlog.url()).await?;
        let due = now_in(Duration::from_millis(500));
        let all: Vec<u32> = (0..scheduled + pending).collect();
        for numbers in all.chunks(ENQUEUED_AT_ONCE as usize) {
            let scheduled = |number: u32| message(number, (number < scheduled).then_some(due));
            let batch = numbers.iter().map(|number| scheduled(*number)).collect::<Result<Vec<_>, _>>()?;
            let mut transaction = redis::pipe();
            outbox.append(transaction.atomic(), &batch)?;
            transaction.exec_async(&mut backlog.connection).await?;
            progress(numbers.len());
        }
        // Now everything is due, and nothing was claimed yet.
        let left = due.as_millis().saturating_sub(now_in(Duration::ZERO).as_millis());
        tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
        backlog.watch().await?;
        Ok(backlog)
    }

    /// The URL of the outbox.
    pub fn url(&self) -> String {
        format!("{}?outbox.name={OUTBOX}", self.server.url())
    }

    /// The calls since it was filled.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn calls(&mut self) -> Result<ServerCalls, BoxError> {
        let log: Vec<redis::Value> =
            redis::cmd("SLOWLOG").arg("GET").arg(-1).query_async(&mut self.connection).await?;
        let mut micros = Vec::new();
        for entry in log {
            let fields: Vec<redis::Value> = redis::from_redis_value(entry)?;
            let duration = fields.get(2).ok_or("an entry of the slow log without a duration")?;
            micros.push(redis::from_redis_value::<u32>(duration.clone())?);
        }
        micros.sort_unstable();
        let from_the_end =
            |index: usize| f64::from(micros.iter().rev().nth(index).copied().unwrap_or(0)) / 1_000.0;
        let calls = micros.len();
        Ok(ServerCalls { slowest_ms: from_the_end(0), p999_ms: from_the_end(calls / 1_000), calls })
    }

    /// From now on every call of a tenth of a millisecond or longer is noted.
    async fn watch(&mut self) -> Result<(), BoxError> {
        let mut pipeline = redis::pipe();
        for (name, value) in [("slowlog-log-slower-than", 100), ("slowlog-max-len", 1_000_000)] {
            pipeline.cmd("CONFIG").arg("SET").arg(name).arg(value).ignore();
        }
        pipeline.cmd("SLOWLOG").arg("RESET").ignore();
        Ok(pipeline.exec_async(&mut self.connection).await?)
    }
}

impl std::fmt::Debug for RedisBacklog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RedisBacklog")
            .field("address", &self.server.address())
            .finish_non_exhaustive()
    }
}
