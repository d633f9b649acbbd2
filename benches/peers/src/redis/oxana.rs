use crate::peer::{Measured, Peer, payload};
use async_trait::async_trait;
use pillarbox_benches::BoxError;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Oxana with a worker that takes jobs in batches.
pub(crate) struct Oxana {
    url: String,
    rounds: u32,
}

#[derive(oxana::Registry)]
struct ComponentRegistry(oxana::ComponentRegistry<Nothing>);

#[derive(Clone, Debug)]
struct Nothing {}

#[derive(Debug, thiserror::Error)]
enum Never {}

#[derive(Debug, Deserialize, Serialize, oxana::Job)]
struct PublishJob {
    payload: String,
}

#[derive(oxana::Worker)]
#[oxana(context = Nothing, batch_size = 500, batch_timeout_ms = 50)]
struct PublishWorker;

impl PublishWorker {
    async fn process_batch(&self, jobs: Vec<oxana::BatchItem<PublishJob>>) -> Result<(), Never> {
        drop(jobs);
        Ok(())
    }
}

#[derive(Serialize, oxana::Queue)]
#[oxana(key = "publish", concurrency = 1000)]
struct PublishQueue;

impl Oxana {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), rounds: 0 }
    }
}

#[async_trait(?Send)]
impl Peer for Oxana {
    fn name(&self) -> &'static str {
        "oxana 2.5"
    }

    fn promises_less(&self) -> &'static str {
        "no lease (jobs of a dead process come back by its heartbeat), no fence, no order per key"
    }

    fn part(&self) -> u32 {
        20
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        self.rounds += 1;
        let namespace = format!("peer-{}", self.rounds);
        let storage =
            oxana::Storage::builder().namespace(namespace).build_from_redis_url(self.url.as_str())?;
        for first in (0..messages).step_by(500) {
            let jobs = (first..messages.min(first + 500)).map(|_| PublishJob { payload: payload() });
            storage.enqueue_list(PublishQueue, jobs).await?;
        }
        let runtime = storage
            .runtime(Nothing {})
            .register::<ComponentRegistry>()
            .exit_when_processed(u64::from(messages));
        let begun = Instant::now();
        runtime.run().await?;
        Ok(Measured { drained: messages, took: begun.elapsed() })
    }
}
