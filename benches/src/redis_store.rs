use crate::{BoxError, Subject};
use pillarbox_core::Message;
use pillarbox_redis::{RedisStorage, layout};
use pillarbox_testkit::servers::RedisServer;
use redis::aio::MultiplexedConnection;

/// The list that the floor is pushed to, and the one that it is moved to.
const FLOOR: [&str; 2] = ["floor", "moved"];

/// Measures the storage in Redis, on a server of its own without persistence.
pub struct RedisBench {
    server: RedisServer,
    outbox: RedisStorage,
    connection: MultiplexedConnection,
}

impl RedisBench {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start() -> Result<Self, BoxError> {
        let server = RedisServer::start()?;
        let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
        let outbox = RedisStorage::open(&format!("{}?outbox.name=bench", server.url())).await?;
        Ok(Self { server, outbox, connection })
    }

    /// Where the server listens.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

impl Subject for RedisBench {
    type Storage = RedisStorage;

    fn name(&self) -> &'static str {
        "redis"
    }

    fn storage(&self) -> &RedisStorage {
        &self.outbox
    }

    fn server(&self) -> Option<u32> {
        self.server.process().process_id()
    }

    async fn clear(&mut self) -> Result<(), BoxError> {
        let settings = "{bench}:settings";
        let kept: Vec<Vec<u8>> =
            redis::cmd("HGETALL").arg(settings).query_async(&mut self.connection).await?;
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("FLUSHALL").ignore().cmd("HSET").arg(settings).arg(kept).ignore();
        Ok(pipeline.exec_async(&mut self.connection).await?)
    }

    async fn stored_bytes(&self) -> Result<u64, BoxError> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        let dataset = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
        Ok(dataset.ok_or("INFO does not tell the memory of the data")?.trim().parse()?)
    }

    async fn enqueue(&self, batch: &[Message]) -> Result<(), BoxError> {
        let mut transaction = redis::pipe();
        self.outbox.append(transaction.atomic(), batch)?;
        Ok(transaction.exec_async(&mut self.connection.clone()).await?)
    }

    async fn enqueue_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg(business(message)).arg("created").ignore();
        self.outbox.append(&mut transaction, std::slice::from_ref(message))?;
        Ok(transaction.exec_async(&mut self.connection.clone()).await?)
    }

    const INSERT_FLOOR: &'static str = "rpush-in-multi";

    async fn insert_floor(&self, batch: &[Message]) -> Result<(), BoxError> {
        let mut transaction = redis::pipe();
        for message in batch {
            transaction.atomic().cmd("RPUSH").arg(FLOOR[0]).arg(layout::encode(message, 0)).ignore();
        }
        Ok(transaction.exec_async(&mut self.connection.clone()).await?)
    }

    async fn insert_floor_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg(business(message)).arg("created").ignore();
        transaction.cmd("RPUSH").arg(FLOOR[0]).arg(layout::encode(message, 0)).ignore();
        Ok(transaction.exec_async(&mut self.connection.clone()).await?)
    }

    const DRAIN_FLOOR: &'static str = "lmove-pipelined";

    async fn drain_floor(&self, batch: u32) -> Result<u32, BoxError> {
        let mut connection = self.connection.clone();
        let mut moved = 0;
        loop {
            let mut pipeline = redis::pipe();
            for _ in 0..batch {
                pipeline.cmd("LMOVE").arg(FLOOR[0]).arg(FLOOR[1]).arg("LEFT").arg("RIGHT");
            }
            let bodies: Vec<Option<bytes::Bytes>> = pipeline.query_async(&mut connection).await?;
            let some = bodies.iter().flatten().count();
            moved += u32::try_from(some)?;
            if some < bodies.len() {
                return Ok(moved);
            }
        }
    }
}

fn business(message: &Message) -> String {
    format!("order:{}", message.id())
}

impl std::fmt::Debug for RedisBench {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RedisBench").field("address", &self.server.address()).finish_non_exhaustive()
    }
}
