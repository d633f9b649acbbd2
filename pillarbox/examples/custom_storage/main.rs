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

/// Clones are handles on the same list.
#[derive(Clone)]
struct ListStorage {
    list: Arc<Mutex<List>>,
    guarantees: StorageGuarantees,
    now: Clock,
}

#[derive(Default)]
struct List {
    records: Vec<StoredRecord>,
    /// It never falls, also when the list is empty again: what held a position before must not be taken for what holds it now.
    next_position: u64,
}

/// The store's clock.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl ListStorage {
    fn new(head_policy: HeadPolicy, max_strikes: u32, now: Clock) -> Self {
        let (order, repeated_ids) = (Order::CommitOrdered, RepeatedIds::SecondCopy);
        let guarantees =
            StorageGuarantees { order, repeated_ids, head_policy, max_strikes, max_run: u32::MAX };
        Self { list: Arc::default(), guarantees, now }
    }

    /// A transaction is a list of messages here; committing it is this.
    fn commit(&self, transaction: Vec<Message>) {
        let now = (self.now)();
        let mut list = self.lock();
        for message in transaction {
            let record = StoredRecord::new(list.next_position, message, now);
            list.records.push(record);
            list.next_position += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordStorage for ListStorage {
    fn guarantees(&self) -> StorageGuarantees {
        self.guarantees
    }

    async fn load_due(&self, limit: u32) -> Result<Due, Error> {
        Ok(Due::select(self.lock().records.iter(), (self.now)(), limit, self.guarantees.head_policy))
    }

    async fn load_claimed(&self, nonce: Nonce) -> Result<Loaded, Error> {
        let list = self.lock();
        let carrying = list.records.iter().filter(|stored| stored.carries(nonce));
        Ok(Loaded { now: (self.now)(), records: carrying.cloned().collect() })
    }

    async fn compare_and_swap(&self, changes: &[Change]) -> Result<bool, Error> {
        let records = &mut self.lock().records;
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
