//! A storage of one's own, whole: a list of records behind a lock. `Records` makes a storage of it.
//!
//! It passes every case of the suite: `cargo test -p pillarbox --example custom_storage`. And it relays:
//! `cargo run -p pillarbox --example custom_storage`.

#[cfg(test)]
mod proof;

use pillarbox::memory::StdoutTransport;

use pillarbox::{
    Admin, Change, Due, Enqueue, Error, HeadPolicy, Limits, Loaded, Message, Nonce, Order, RecordStorage,
    Records, Relay, RelayConfig, RepeatedIds, State, StorageGuarantees, StoredRecord, Timestamp, TokioTimer,
    Wakeup,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let clock = || Timestamp::EPOCH.after(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    let outbox =
        ListStorage::new(HeadPolicy::Continue, StorageGuarantees::DEFAULT_MAX_STRIKES, Arc::new(clock));
    let mut transaction = Vec::new();
    outbox.enqueue(&mut transaction, &[Message::to("orders.created").key("order-1").payload("{}")?]).await?;
    outbox.commit(transaction);

    let relay = Relay::new(Records(outbox), StdoutTransport::new(), RelayConfig::default())?;
    relay.timer(TokioTimer::new()).run(tokio::time::sleep(Duration::from_millis(200))).await
}

/// The list; clones are handles on the same one.
#[derive(Clone)]
struct ListStorage {
    records: Arc<Mutex<Vec<StoredRecord>>>,
    guarantees: StorageGuarantees,
    now: Clock,
}

/// The store's clock.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl ListStorage {
    fn new(head_policy: HeadPolicy, max_strikes: u32, now: Clock) -> Self {
        let (order, repeated_ids) = (Order::CommitOrdered, RepeatedIds::SecondCopy);
        let guarantees =
            StorageGuarantees { order, repeated_ids, head_policy, max_strikes, max_run: u32::MAX };
        Self { records: Arc::default(), guarantees, now }
    }

    /// A transaction is a list of messages here; committing it is this.
    fn commit(&self, transaction: Vec<Message>) {
        let now = (self.now)();
        let mut records = self.lock();
        for message in transaction {
            let position = records.last().map_or(0, |last| last.position + 1);
            records.push(StoredRecord::new(position, message, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StoredRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordStorage for ListStorage {
    fn guarantees(&self) -> StorageGuarantees {
        self.guarantees
    }

    async fn load_due(&self, limit: u32) -> Result<Due, Error> {
        Ok(Due::select(self.lock().iter(), (self.now)(), limit, self.guarantees.head_policy))
    }

    async fn load_claimed(&self, nonce: Nonce) -> Result<Loaded, Error> {
        let records = self.lock();
        let carrying = records.iter().filter(|stored| stored.carries(nonce));
        Ok(Loaded { now: (self.now)(), records: carrying.cloned().collect() })
    }

    async fn compare_and_swap(&self, changes: &[Change]) -> Result<bool, Error> {
        let mut records = self.lock();
        let mut places = Vec::with_capacity(changes.len());
        for change in changes {
            match records.binary_search_by_key(&change.position, |stored| stored.position) {
                Ok(place) if records[place].record == change.expected => places.push(place),
                _ => return Ok(false),
            }
        }
        for (change, place) in changes.iter().zip(places) {
            records[place].record = change.record;
        }
        records.retain(|stored| stored.record.state != State::Published);
        Ok(true)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }
    fn admin(&self) -> Option<&dyn Admin> {
        None
    }
}

impl Enqueue<Vec<Message>> for ListStorage {
    async fn enqueue(&self, transaction: &mut Vec<Message>, messages: &[Message]) -> Result<(), Error> {
        messages.iter().try_for_each(|message| Limits::default().check(message))?;
        transaction.extend_from_slice(messages);
        Ok(())
    }
}
