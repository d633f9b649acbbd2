//! The producer's half.

use crate::config::Durability;
use crate::{RedisStorage, error, layout};
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, ErrorKind, Message};
use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, Pipeline, Value};
use std::collections::BTreeMap;

/// So many records go into one `RPUSH` at most.
const RECORDS_PER_COMMAND: usize = 500;

impl RedisStorage {
    /// Adds messages to the caller's transaction: plain commands, whose replies are ignored, so that the caller's own result
    /// keeps its shape. Without `async`, so for blocking clients too. On a cluster every key of the transaction must carry the
    /// outbox's tag: `{orders}order:1`.
    ///
    /// # Errors
    /// `Misconfigured` if the pipeline is not [`atomic`](Pipeline::atomic), since a crash in its middle would split data and
    /// messages; `Rejected` for a message over a limit of this outbox. The pipeline is unchanged then.
    pub fn append(&self, pipeline: &mut Pipeline, messages: &[Message]) -> Result<(), Error> {
        if !pipeline.is_transaction() {
            return Err(Error::new(ErrorKind::Misconfigured, "enqueue")
                .describe(
                    "the pipeline is no transaction; call `atomic()` on it before messages are appended",
                )
                .not_applied());
        }
        for message in messages {
            self.0.settings.limits.check(message)?;
        }
        if messages.is_empty() {
            return Ok(());
        }
        for (list, records) in self.lists(messages) {
            for records in records.chunks(RECORDS_PER_COMMAND) {
                pipeline.cmd("RPUSH").arg(&list).arg(records).ignore();
            }
        }
        if self.0.config.notify {
            pipeline.cmd(self.0.publish).arg(self.key("wake")).arg("").ignore();
        }
        Ok(())
    }

    /// Stores messages in a transaction of their own, and waits as far as [`Durability`] asks. Beside business data this is *not* an
    /// outbox: whoever writes both uses [`append`](Self::append) with the transaction of the data.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, and then nothing is stored; else any kind, whose effect says
    /// whether the messages may be stored all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all messages stored, or none.
    pub async fn enqueue_alone(&self, messages: &[Message]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        self.append(pipeline.atomic(), messages)?;
        if messages.is_empty() {
            return Ok(());
        }
        let map = |failure| error::map(failure, "enqueue", &self.0.place);
        let Some(wait) = self.wait_command() else {
            return self.0.connection.run_pipeline(&pipeline).await.map_err(map);
        };
        // `WAIT` speaks of what its own connection has written, and holds up whatever shares it.
        let connection = self.0.blocking.lock().await;
        connection.run_pipeline(&pipeline).await.map_err(map)?;
        let answer = connection.run(&wait).await.map_err(|failure| {
            let kind = error::map(failure, "enqueue", &self.0.place);
            Error::new(kind.kind(), "enqueue")
                .describe("stored, and its durability could not be confirmed")
                .caused_by(kind)
        })?;
        self.confirmed(answer)
    }

    /// Waits until what `connection` has written is as durable as [`Durability`] asks. Call it after the caller's own
    /// transaction, on the *same* connection, and on one that nothing else shares: it blocks. With [`Durability::None`] it
    /// returns at once.
    ///
    /// # Errors
    /// `Unavailable` if too few replicas or disks confirmed in time: the messages are stored, and may be lost in a failover.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn confirm<C: ConnectionLike>(&self, connection: &mut C) -> Result<(), Error> {
        let Some(wait) = self.wait_command() else { return Ok(()) };
        let answer = wait.query_async::<Value>(connection).await.map_err(|error| {
            error::map(crate::connection::Failure::Request(error), "confirm", &self.0.place)
        })?;
        self.confirmed(answer)
    }

    fn wait_command(&self) -> Option<Cmd> {
        let config = &self.0.config;
        let timeout = u64::try_from(config.durability_timeout.as_millis()).unwrap_or(u64::MAX);
        let mut command = Cmd::new();
        match config.durability {
            Durability::None => return None,
            Durability::Wait => command.arg("WAIT").arg(config.replicas).arg(timeout),
            Durability::WaitAof => command.arg("WAITAOF").arg(1).arg(config.replicas).arg(timeout),
        };
        Some(command)
    }

    fn confirmed(&self, answer: Value) -> Result<(), Error> {
        let config = &self.0.config;
        let (disk, replicas) = match config.durability {
            Durability::WaitAof => <(u32, u32)>::from_redis_value(answer).unwrap_or((0, 0)),
            _ => (1, u32::from_redis_value(answer).unwrap_or(0)),
        };
        if disk >= 1 && replicas >= config.replicas {
            return Ok(());
        }
        let disk = if disk == 0 { ", the primary's own disk did not" } else { "" };
        Err(Error::new(ErrorKind::Unavailable, "enqueue").describe(format!(
            "stored, but only {replicas} of {} replicas confirmed it within {:?}{disk}; a failover may lose it",
            config.replicas, config.durability_timeout
        )))
    }

    /// The records by the list that each belongs to, in the order of the messages.
    fn lists(&self, messages: &[Message]) -> BTreeMap<String, Vec<Vec<u8>>> {
        let lanes = self.0.settings.lanes;
        let mut lists: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        // Messages without a key may lie anywhere. Those of one call share a lane, so that they cost one command, and calls
        // are spread by the ids, which are random.
        let spread = messages.first().map_or(0, |message| crc32fast::hash(&message.id().to_bytes()));
        let mut unkeyed = 0_u32;
        for message in messages {
            let lane = match message.key() {
                Some(key) => layout::lane_of(key, lanes),
                None => {
                    unkeyed += 1;
                    let chunk = spread.wrapping_add((unkeyed - 1) / 100);
                    u16::try_from(chunk % u32::from(lanes)).unwrap_or_default()
                }
            };
            let list = match message.deliver_at() {
                Some(_) => self.key("inbox"),
                None => self.key(&format!("lane:{lane}")),
            };
            lists.entry(list).or_default().push(layout::encode(message, lane));
        }
        lists
    }
}

impl Enqueue<Pipeline> for RedisStorage {
    async fn enqueue(&self, transaction: &mut Pipeline, messages: &[Message]) -> Result<(), Error> {
        self.append(transaction, messages)
    }
}

impl EnqueueAlone for RedisStorage {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.enqueue_alone(messages))
    }
}
