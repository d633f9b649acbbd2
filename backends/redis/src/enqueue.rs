//! The producer's half.

use crate::config::Durability;
use crate::{RedisStorage, error, layout};
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, ErrorKind, Message};
use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, Pipeline, RedisWrite, ToRedisArgs, Value};
use std::io::Write as _;

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
        let mut placed: Vec<Placed<'_>> = self.placed(messages).collect();
        // In the order of the messages within each list, since this sort is stable.
        placed.sort_by_key(|placed| placed.list);
        for of_list in placed.chunk_by(|one, next| one.list == next.list) {
            for records in of_list.chunks(RECORDS_PER_COMMAND) {
                pipeline.add_command(self.push(records)).ignore();
            }
        }
        if let Some(hint) = &self.0.hint {
            pipeline.add_command(hint.clone()).ignore();
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

    /// The lane and the list of each message.
    fn placed<'a>(&self, messages: &'a [Message]) -> impl Iterator<Item = Placed<'a>> {
        let lanes = self.0.settings.lanes;
        // Messages without a key may lie anywhere. Those of one call share a lane, so that they cost one command, and calls
        // are spread by the ids, which are random.
        let spread = messages.first().map_or(0, |message| crc32fast::hash(&message.id().to_bytes()));
        let mut unkeyed = 0_u32;
        messages.iter().map(move |message| {
            let lane = match message.key() {
                Some(key) => layout::lane_of(key, lanes),
                None => {
                    unkeyed += 1;
                    let chunk = spread.wrapping_add((unkeyed - 1) / 100);
                    u16::try_from(chunk % u32::from(lanes)).unwrap_or_default()
                }
            };
            let list = if message.deliver_at().is_some() { None } else { Some(lane) };
            Placed { list, lane, message }
        })
    }

    /// The command that appends these, all of one list. Of the right size at once, and written in place: small transactions cost
    /// what they allocate and copy.
    fn push(&self, records: &[Placed<'_>]) -> Cmd {
        const NAME: &str = "RPUSH";
        let lane = records.first().and_then(|placed| placed.list);
        let list = lane.and_then(|lane| self.0.lists.get(usize::from(lane))).unwrap_or(&self.0.inbox);
        let sizes = records.iter().map(|placed| layout::size(placed.message));
        let mut command =
            Cmd::with_capacity(2 + records.len(), NAME.len() + list.len() + sizes.sum::<usize>());
        command.arg(NAME).arg(list);
        for placed in records {
            command.arg(placed);
        }
        command
    }
}

/// A message and where it goes.
struct Placed<'a> {
    /// The lane's list, or none for the inbox.
    list: Option<u16>,
    lane: u16,
    message: &'a Message,
}

/// Its record.
impl ToRedisArgs for Placed<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut record = out.writer_for_next_arg();
        layout::write(self.message, self.lane, |part| {
            // It goes to memory, where nothing fails.
            let _ = record.write_all(part);
        });
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
