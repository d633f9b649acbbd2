use crate::{BoxError, Nowhere, Subject};
use pillarbox_core::{Error, Message, Observation, Observer, Relay, RelayConfig, Timer};
use pillarbox_memory::MemoryStorage;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// Measures the storage in memory. Its floor is a queue behind a lock.
#[derive(Debug, Default)]
pub struct MemoryBench {
    outbox: MemoryStorage,
    floor: Mutex<VecDeque<Message>>,
}

impl MemoryBench {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&self, messages: &[Message]) {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner).extend(messages.iter().cloned());
    }
}

impl Subject for MemoryBench {
    type Storage = MemoryStorage;

    fn name(&self) -> &'static str {
        "memory"
    }

    fn storage(&self) -> &MemoryStorage {
        &self.outbox
    }

    fn server(&self) -> Option<u32> {
        None
    }

    async fn clear(&mut self) -> Result<(), BoxError> {
        *self = Self::default();
        Ok(())
    }

    async fn stored_bytes(&self) -> Result<u64, BoxError> {
        crate::memory::resident().map(|bytes| bytes.now)
    }

    async fn enqueue(&self, batch: &[Message]) -> Result<(), BoxError> {
        Ok(self.outbox.enqueue_alone(batch)?)
    }

    async fn enqueue_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut transaction = self.outbox.transaction();
        transaction.stage(|| ());
        transaction.append(std::slice::from_ref(message))?;
        transaction.commit();
        Ok(())
    }

    const INSERT_FLOOR: &'static str = "queue-push";

    async fn insert_floor(&self, batch: &[Message]) -> Result<(), BoxError> {
        self.push(batch);
        Ok(())
    }

    async fn insert_floor_with_business(&self, message: &Message) -> Result<(), BoxError> {
        self.push(std::slice::from_ref(message));
        Ok(())
    }

    const DRAIN_FLOOR: &'static str = "queue-pop";

    async fn drain_floor(&self, batch: u32) -> Result<u32, BoxError> {
        let mut taken = 0;
        loop {
            let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
            let some = floor.len().min(batch as usize);
            if some == 0 {
                return Ok(taken);
            }
            let batch: Vec<Message> = floor.drain(..some).collect();
            drop(floor);
            taken += u32::try_from(batch.len())?;
        }
    }
}

/// Relays `count` messages out of `storage` to nowhere, on the task that awaits this.
///
/// # Errors
/// As [`Relay::run`].
pub async fn drain_memory(
    storage: MemoryStorage,
    count: u32,
    batch: u32,
    timer: impl Timer,
) -> Result<(), Error> {
    let settled = Arc::new(Settled::default());
    let relay = Relay::new(storage, Nowhere, RelayConfig::default().batch_size(batch))?
        .timer(timer)
        .observer(Arc::clone(&settled));
    let drained = std::future::poll_fn(|_| {
        if settled.0.load(Ordering::Relaxed) >= count { Poll::Ready(()) } else { Poll::Pending }
    });
    relay.run(drained).await
}

/// Counts what the store has taken as published.
#[derive(Debug, Default)]
struct Settled(AtomicU32);

impl Observer for Settled {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Settled { published, .. } = observation {
            self.0.fetch_add(*published, Ordering::Relaxed);
        }
    }
}
