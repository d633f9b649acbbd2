//! What the suite of the testkit cannot see: races lost, and how far a solo claim looks. The suite itself runs over
//! [`Records`] in the facade's example of a storage of one's own.

use super::{Change, Due, Loaded, RecordStorage, Records, StoredRecord};
use crate::{
    Admin, Claim, Error, ErrorKind, HeadPolicy, Message, MessageId, Nonce, Order, Outcome, RepeatedIds,
    Settlements, Storage, StorageGuarantees, Timestamp, Token, Verdict, Wakeup,
};
use futures_executor::block_on;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

/// A list behind a lock, whose swaps lose a number of races first.
#[derive(Default)]
struct List {
    records: Mutex<Vec<StoredRecord>>,
    seconds: AtomicI64,
    races_to_lose: AtomicU32,
    most_asked_for: AtomicU32,
}

impl List {
    fn with(count: u8) -> Records<Self> {
        let list = Self::default();
        let message = |number: u8| {
            Message::given(MessageId::from_bytes([number; 16]), Timestamp::EPOCH, "orders")
                .payload("")
                .unwrap()
        };
        let records =
            (0..count).map(|number| StoredRecord::new(number.into(), message(number), Timestamp::EPOCH));
        *list.records.lock().unwrap() = records.collect();
        Records(list)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.seconds.load(Ordering::Relaxed) * 1_000)
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl RecordStorage for List {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: HeadPolicy::Continue,
            max_strikes: 3,
            max_run: u32::MAX,
        }
    }

    async fn load_due(&self, limit: u32) -> Result<Due, Error> {
        self.most_asked_for.fetch_max(limit, Ordering::Relaxed);
        Ok(Due::select(self.records.lock().unwrap().iter(), self.now(), limit, HeadPolicy::Continue))
    }

    async fn load_claimed(&self, nonce: Nonce) -> Result<Loaded, Error> {
        let mut records = self.records.lock().unwrap().clone();
        records.retain(|stored| stored.carries(nonce));
        Ok(Loaded { now: self.now(), records })
    }

    async fn compare_and_swap(&self, changes: &[Change]) -> Result<bool, Error> {
        let lost = self
            .races_to_lose
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |races| races.checked_sub(1));
        if lost.is_ok() {
            return Ok(false);
        }
        let mut records = self.records.lock().unwrap();
        let place = |change: &Change| records.iter().position(|stored| stored.position == change.position);
        let places: Vec<_> = changes.iter().filter_map(place).collect();
        for (change, place) in changes.iter().zip(&places) {
            assert_eq!(records[*place].record, change.expected);
            records[*place].record = change.record;
        }
        Ok(places.len() == changes.len())
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }

    fn admin(&self) -> Option<&dyn Admin> {
        None
    }
}

fn ask(number: u64, limit: u32, solo: bool) -> Claim {
    Claim { limit, lease: LEASE, nonce: Nonce::from_words(0, number), solo }
}

fn publish(store: &Records<List>, token: Token, count: usize) -> Result<Outcome, Error> {
    let mut settlements = Settlements::new();
    settlements.verdicts(token, vec![Verdict::Published; count]);
    block_on(store.settle(&settlements)).map(|answers| answers[0].outcome)
}

#[test]
fn a_lost_race_is_run_again() {
    let store = List::with(3);
    store.0.races_to_lose.store(5, Ordering::Relaxed);
    let claimed = block_on(store.claim(ask(1, 3, false))).unwrap();
    assert_eq!(claimed.entries.len(), 3);
    store.0.races_to_lose.store(5, Ordering::Relaxed);
    assert_eq!(publish(&store, claimed.runs[0].token, 3).unwrap(), Outcome::Applied);
}

#[test]
fn who_loses_every_race_hears_of_it_and_nothing_has_changed() {
    let store = List::with(1);
    store.0.races_to_lose.store(u32::MAX, Ordering::Relaxed);
    let error = block_on(store.claim(ask(1, 1, false))).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, crate::Effect::NotApplied));
    store.0.races_to_lose.store(0, Ordering::Relaxed);
    let claimed = block_on(store.claim(ask(2, 1, false))).unwrap();
    store.0.races_to_lose.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(publish(&store, claimed.runs[0].token, 1).unwrap_err().kind(), ErrorKind::Unavailable);
    store.0.races_to_lose.store(0, Ordering::Relaxed);
    assert_eq!(publish(&store, claimed.runs[0].token, 1).unwrap(), Outcome::Applied);
}

#[test]
fn a_solo_claim_looks_behind_what_has_been_due_for_longer() {
    let store = List::with(200);
    // The first message alone; its relay dies, and an ordinary claim charges that.
    block_on(store.claim(ask(1, 1, false))).unwrap();
    store.0.pass(31);
    let others = block_on(store.claim(ask(2, 1, false))).unwrap();
    assert!(others.runs.is_empty() && others.suspects == 1, "{others:?}");
    let solo = block_on(store.claim(ask(3, 1, true))).unwrap();
    assert_eq!((solo.entries.len(), solo.runs[0].token.unit), (1, 0));
    assert_eq!(store.0.most_asked_for.load(Ordering::Relaxed), 512);
}

#[test]
fn a_solo_claim_without_suspects_ends() {
    let store = List::with(200);
    assert!(block_on(store.claim(ask(1, 1, true))).unwrap().runs.is_empty());
}
