use crate::peer::{Measured, Peer, payload};
use apalis::prelude::WorkerBuilderExt as _;
use apalis_core::backend::TaskSink as _;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_redis::{Config, RedisStorage};
use async_trait::async_trait;
use pillarbox_benches::BoxError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// apalis-redis at its best: batches, no lock for each task, no events.
///
/// Its acknowledgements are its results: with `persist_results(false)` a task that is done stays in flight, and comes back once its
/// worker is gone. So that is no drain, and is not measured.
pub(crate) struct Apalis {
    url: String,
    batch: u32,
    rounds: u32,
}

const WORKER: &str = "relay";

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Published {
    payload: String,
}

impl Apalis {
    pub(crate) fn new(url: &str, batch: u32) -> Self {
        Self { url: url.to_owned(), batch, rounds: 0 }
    }
}

#[async_trait(?Send)]
impl Peer for Apalis {
    fn name(&self) -> &'static str {
        "apalis-redis 1.0"
    }

    fn promises_less(&self) -> &'static str {
        "no lease for a task (lock_tasks is off), no fence, no order per key; done tasks stay"
    }

    /// With 8,000 tasks and more in its queue its script fails: "too many results to unpack".
    fn part(&self) -> u32 {
        40
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        self.rounds += 1;
        let queue = format!("peer-{}", self.rounds);
        let config = Config::default()
            .queue(queue)
            .batch_size(self.batch as usize)
            .lock_tasks(false)
            .emit_events(false)
            .persist_results(true);
        let in_flight = format!("{}:{WORKER}", config.inflight_jobs_set());
        let connection = apalis_redis::connect(self.url.as_str()).await?;
        let mut storage = RedisStorage::new(connection.clone()).with_config(config);
        for first in (0..messages).step_by(self.batch as usize) {
            let count = self.batch.min(messages - first) as usize;
            storage.push_bulk(vec![Published { payload: payload() }; count]).await?;
        }

        let (done, mut ended) = watch::channel(false);
        let published = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&published);
        let handler = move |task: Published| {
            let (counted, done) = (Arc::clone(&counted), done.clone());
            async move {
                drop(task);
                if counted.fetch_add(1, Ordering::Relaxed) + 1 == messages {
                    done.send_replace(true);
                }
                Ok::<(), apalis_core::error::BoxDynError>(())
            }
        };
        let worker =
            WorkerBuilder::new(WORKER).backend(storage).concurrency(self.batch as usize).build(handler);
        let begun = Instant::now();
        // Its last acknowledgements are written while it stops.
        worker
            .run_until(async move {
                let _ = ended.wait_for(|done| *done).await;
                Ok::<(), std::io::Error>(())
            })
            .await?;
        let took = begun.elapsed();
        let mut connection = connection;
        let unsettled: u32 = redis::cmd("SCARD").arg(in_flight).query_async(&mut connection).await?;
        if unsettled > 0 {
            return Err(format!("{unsettled} tasks of {messages} were not acknowledged").into());
        }
        Ok(Measured { drained: published.load(Ordering::Relaxed), took })
    }
}
