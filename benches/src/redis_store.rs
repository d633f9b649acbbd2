use crate::row::{hundredths, per_second};
use crate::{BoxError, Keys, Row, Work, drain};
use futures_util::future::try_join_all;
use pillarbox_core::Message;
use pillarbox_redis::{RedisStorage, layout};
use pillarbox_testkit::servers::RedisServer;
use redis::aio::MultiplexedConnection;
use std::time::{Duration, Instant};

/// Measures the storage in Redis, on a server of its own without persistence.
pub struct RedisBench {
    server: RedisServer,
    outbox: RedisStorage,
    connection: MultiplexedConnection,
    messages: u32,
    batch: u32,
}

impl RedisBench {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(messages: u32, batch: u32) -> Result<Self, BoxError> {
        let server = RedisServer::start()?;
        let connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
        let outbox = RedisStorage::open(&format!("{}?outbox.name=bench", server.url())).await?;
        Ok(Self { server, outbox, connection, messages, batch })
    }

    /// Measures one case, floor and outbox one after the other.
    ///
    /// # Errors
    /// Whatever stops it.
    pub async fn measure(&mut self, work: Work, keys: Keys, relays: u32) -> Result<Row, BoxError> {
        let batches = self.batches(keys)?;
        match work {
            Work::Enqueue => self.enqueue(keys, relays, &batches).await,
            Work::Drain => self.drain(keys, relays, &batches).await,
        }
    }

    fn batches(&self, keys: Keys) -> Result<Vec<Vec<Message>>, BoxError> {
        let numbers: Vec<u32> = (0..self.messages).collect();
        let batch = |numbers: &[u32]| numbers.iter().map(|number| keys.message(*number)).collect();
        Ok(numbers.chunks(self.batch as usize).map(batch).collect::<Result<_, _>>()?)
    }

    async fn enqueue(
        &mut self,
        keys: Keys,
        producers: u32,
        batches: &[Vec<Message>],
    ) -> Result<Row, BoxError> {
        self.clear().await?;
        let begun = Instant::now();
        for batch in batches {
            let mut pipeline = redis::pipe();
            for message in batch {
                pipeline.cmd("RPUSH").arg("floor").arg(layout::encode(message, 0)).ignore();
            }
            pipeline.exec_async(&mut self.connection).await?;
        }
        let floor = begun.elapsed();
        self.clear().await?;
        let begun = Instant::now();
        let share = batches.len().div_ceil(producers as usize);
        try_join_all(batches.chunks(share).map(|batches| self.append_all(batches))).await?;
        let ours = begun.elapsed();
        let mut row = self.row(Work::Enqueue, keys, producers, "rpush-pipelined", floor);
        self.rate(&mut row, ours);
        Ok(row)
    }

    async fn drain(&mut self, keys: Keys, relays: u32, batches: &[Vec<Message>]) -> Result<Row, BoxError> {
        let count = u64::from(self.messages);
        self.clear().await?;
        self.append_all(batches).await?;
        let ours = drain::by_relays(&self.outbox, relays, self.batch, count).await?;

        self.clear().await?;
        self.append_all(batches).await?;
        let before = self.processor().await?;
        let plain = drain::by_loop(&self.outbox, self.batch, count).await?;
        let server = self.processor().await? - before;

        self.clear().await?;
        for batch in batches {
            let records: Vec<_> = batch.iter().map(|message| layout::encode(message, 0)).collect();
            redis::cmd("RPUSH").arg("floor").arg(records).exec_async(&mut self.connection).await?;
        }
        let before = self.processor().await?;
        let begun = Instant::now();
        for batch in batches {
            let mut pipeline = redis::pipe();
            for _ in batch {
                pipeline.cmd("LMOVE").arg("floor").arg("moved").arg("LEFT").arg("RIGHT");
            }
            let moved: Vec<bytes::Bytes> = pipeline.query_async(&mut self.connection).await?;
            if moved.len() != batch.len() {
                return Err("the floor's list ended early".into());
            }
        }
        let floor = begun.elapsed();
        let floor_server = self.processor().await? - before;

        let mut row = self.row(Work::Drain, keys, relays, "lmove-pipelined", floor);
        self.rate(&mut row, ours);
        row.loop_per_s = Some(per_second(self.messages, plain));
        row.server_us = Some(hundredths(server * 1e6 / f64::from(self.messages)));
        row.floor_server_us = Some(hundredths(floor_server * 1e6 / f64::from(self.messages)));
        Ok(row)
    }

    async fn append_all(&self, batches: &[Vec<Message>]) -> Result<(), BoxError> {
        let mut connection = self.connection.clone();
        for batch in batches {
            let mut transaction = redis::pipe();
            self.outbox.append(transaction.atomic(), batch)?;
            transaction.exec_async(&mut connection).await?;
        }
        Ok(())
    }

    /// Empties everything but the settings.
    async fn clear(&mut self) -> Result<(), BoxError> {
        let settings = "{bench}:settings";
        let kept: Vec<Vec<u8>> =
            redis::cmd("HGETALL").arg(settings).query_async(&mut self.connection).await?;
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("FLUSHALL").ignore().cmd("HSET").arg(settings).arg(kept).ignore();
        Ok(pipeline.exec_async(&mut self.connection).await?)
    }

    /// Seconds of processor that the server has used.
    async fn processor(&mut self) -> Result<f64, BoxError> {
        let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut self.connection).await?;
        let fact = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(':')).and_then(|number| number.trim().parse::<f64>().ok())
        };
        let used = fact("used_cpu_user_main_thread").zip(fact("used_cpu_sys_main_thread"));
        used.map(|(user, system)| user + system).ok_or_else(|| "INFO does not tell processor times".into())
    }

    fn row(&self, work: Work, keys: Keys, relays: u32, floor: &'static str, took: Duration) -> Row {
        Row {
            storage: "redis",
            work,
            case: keys.name(),
            relays,
            batch: self.batch,
            floor,
            floor_per_s: per_second(self.messages, took),
            ours_per_s: 0,
            ratio: 0.0,
            loop_per_s: None,
            server_us: None,
            floor_server_us: None,
        }
    }

    fn rate(&self, row: &mut Row, took: Duration) {
        row.ours_per_s = per_second(self.messages, took);
        #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let ratio = row.ours_per_s as f64 / row.floor_per_s.max(1) as f64;
        row.ratio = hundredths(ratio);
    }
}

impl std::fmt::Debug for RedisBench {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RedisBench").field("address", &self.server.address()).finish_non_exhaustive()
    }
}
