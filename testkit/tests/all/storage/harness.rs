use super::broken::{Broken, Fault};
use pillarbox_core::{Enqueue, Error, ErrorKind, Message, Timestamp};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
use pillarbox_testkit::storage::{Abilities, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An outbox in memory that breaks one promise.
pub(crate) struct Mutant(pub(crate) Fault);

pub(crate) struct MutantStore {
    storage: Broken,
    memory: MemoryStorage,
    fault: Fault,
    seen: Arc<Mutex<HashSet<pillarbox_core::MessageId>>>,
}

pub(crate) struct MutantProducer {
    memory: MemoryStorage,
    fault: Fault,
    seen: Arc<Mutex<HashSet<pillarbox_core::MessageId>>>,
}

impl StorageHarness for Mutant {
    type Store = MutantStore;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    async fn create(&self, settings: &OutboxSettings) -> Result<MutantStore, BoxError> {
        let clock = MemoryClock::manual(Timestamp::from_millis(1_700_000_000_000));
        let config = MemoryConfig::with_clock(clock)
            .head_policy(settings.head_policy)
            .max_strikes(if self.0 == Fault::NeverCountsCrashes { u32::MAX } else { settings.max_strikes })
            .keep_published(settings.keep_published);
        let memory = MemoryStorage::open(config)?;
        let storage = Broken::new(memory.clone(), self.0);
        Ok(MutantStore { storage, memory, fault: self.0, seen: Arc::default() })
    }
}

impl TestStore for MutantStore {
    type Storage = Broken;
    type Producer = MutantProducer;

    async fn connect(&self) -> Result<Broken, BoxError> {
        Ok(self.storage.clone())
    }

    async fn producer(&self) -> Result<MutantProducer, BoxError> {
        Ok(MutantProducer { memory: self.memory.clone(), fault: self.fault, seen: Arc::clone(&self.seen) })
    }

    async fn advance(&self, by: Duration) -> Result<(), BoxError> {
        self.memory.clock().advance(by);
        Ok(())
    }

    async fn corrupt(&self) -> Result<(), BoxError> {
        self.memory.enqueue_undecodable(&b"\xff"[..], "it has no length");
        Ok(())
    }
}

impl Producer for MutantProducer {
    type Transaction = MemoryTransaction;

    async fn begin(&self) -> Result<MemoryTransaction, BoxError> {
        Ok(self.memory.transaction())
    }

    async fn enqueue(
        &self,
        transaction: &mut MemoryTransaction,
        messages: &[Message],
    ) -> Result<(), BoxError> {
        let mut messages = messages.to_vec();
        match self.fault {
            Fault::LosesTheLast => drop(messages.pop()),
            Fault::DropsHeaders => {
                messages.iter_mut().for_each(|message| *message = copy(message, true, false));
            }
            Fault::IgnoresSchedules => {
                messages.iter_mut().for_each(|message| *message = copy(message, false, true));
            }
            Fault::RefusesRepeatedIds => {
                let mut seen = self.seen.lock().unwrap();
                if messages.iter().any(|message| !seen.insert(message.id())) {
                    return Err(Error::new(ErrorKind::Rejected, "enqueue").describe("duplicate id").into());
                }
            }
            Fault::CommitsEarly => {
                self.memory.enqueue_alone(&messages)?;
                return Ok(());
            }
            _ => {}
        }
        Ok(Enqueue::enqueue(&self.memory, transaction, &messages).await?)
    }

    async fn commit(&self, transaction: MemoryTransaction) -> Result<(), BoxError> {
        transaction.commit();
        Ok(())
    }

    async fn rollback(&self, transaction: MemoryTransaction) -> Result<(), BoxError> {
        if self.fault == Fault::CommitsRollbacks {
            transaction.commit();
        }
        Ok(())
    }
}

/// The message with its schedule and its headers, or without.
fn copy(message: &Message, schedule: bool, headers: bool) -> Message {
    let mut copy = Message::given(message.id(), message.created_at(), message.topic().clone());
    if let Some(key) = message.key() {
        copy = copy.key(key.clone());
    }
    if let Some(time) = message.deliver_at().filter(|_| schedule) {
        copy = copy.deliver_at(time);
    }
    if headers {
        copy = copy.headers(message.headers().clone());
    }
    copy.payload(message.payload().clone()).unwrap()
}
