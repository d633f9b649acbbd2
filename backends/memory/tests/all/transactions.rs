//! The caller's data and the messages, together or not at all.

use futures_executor::block_on;
use pillarbox_core::{Claim, Enqueue, ErrorKind, Limits, Message, MessageId, Nonce, Storage, Timestamp};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn outbox() -> MemoryStorage {
    MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH))).unwrap()
}

fn message(number: u8) -> Message {
    Message::given(MessageId::from_bytes([number; 16]), Timestamp::EPOCH, "orders")
        .payload(vec![number])
        .unwrap()
}

fn pending(outbox: &MemoryStorage) -> u64 {
    block_on(outbox.admin().unwrap().stats()).unwrap().pending
}

#[test]
fn a_commit_takes_the_callers_writes_and_the_messages_together() {
    let (outbox, table) = (outbox(), Arc::new(Mutex::new(Vec::new())));
    let mut transaction = outbox.transaction();
    let rows = table.clone();
    transaction.stage(move || rows.lock().unwrap().push("order"));
    block_on(outbox.enqueue(&mut transaction, &[message(1)])).unwrap();
    assert!(table.lock().unwrap().is_empty());
    assert_eq!(pending(&outbox), 0);
    transaction.commit();
    assert_eq!(*table.lock().unwrap(), ["order"]);
    assert_eq!(pending(&outbox), 1);
}

#[test]
fn a_dropped_transaction_leaves_neither() {
    let (outbox, table) = (outbox(), Arc::new(Mutex::new(Vec::new())));
    let mut transaction = outbox.transaction();
    let rows = table.clone();
    transaction.stage(move || rows.lock().unwrap().push("order"));
    transaction.append(&[message(1)]).unwrap();
    drop(transaction);
    assert!(table.lock().unwrap().is_empty());
    assert_eq!(pending(&outbox), 0);
}

#[test]
fn a_message_over_the_outboxes_limit_adds_nothing() {
    let limits = Limits::with_max_payload(10).unwrap();
    let outbox =
        MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH)).limits(limits))
            .unwrap();
    let large = Message::given(MessageId::from_bytes([2; 16]), Timestamp::EPOCH, "orders")
        .payload(vec![0; 11])
        .unwrap();
    let mut transaction = outbox.transaction();
    let error = transaction.append(&[message(1), large]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("max_payload"), "{error}");
    transaction.commit();
    assert_eq!(pending(&outbox), 0);
}

#[test]
fn another_outboxes_transaction_is_refused() {
    let (one, other) = (outbox(), outbox());
    let error = block_on(one.enqueue(&mut other.transaction(), &[message(1)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

#[test]
fn no_strikes_at_all_is_refused() {
    let error =
        MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH)).max_strikes(0))
            .unwrap_err();
    assert!(error.to_string().contains("max_strikes"));
}

#[test]
fn a_write_that_panics_leaves_the_outbox_usable() {
    let outbox = outbox();
    let mut transaction = outbox.transaction();
    transaction.stage(|| panic!("the caller's own fault"));
    transaction.append(&[message(1)]).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| transaction.commit())).is_err());
    assert_eq!(pending(&outbox), 0);
    outbox.enqueue_alone(&[message(2)]).unwrap();
    assert_eq!(pending(&outbox), 1);
}

#[test]
fn a_claim_looks_at_what_it_hands_out_and_not_at_the_backlog() {
    let clock = MemoryClock::manual(Timestamp::from_millis(1_000));
    let outbox = MemoryStorage::open(MemoryConfig::with_clock(clock.clone())).unwrap();
    let due = clock.now().after(Duration::from_secs(60));
    let scheduled: Vec<_> = (0..20_000_u32)
        .map(|number| {
            let id = MessageId::from_bytes(u128::from(number).to_be_bytes());
            Message::given(id, Timestamp::EPOCH, "orders").deliver_at(due).payload("").unwrap()
        })
        .collect();
    outbox.enqueue_alone(&scheduled).unwrap();
    clock.advance(Duration::from_secs(61));
    let claim =
        Claim { limit: 10, lease: Duration::from_secs(1), nonce: Nonce::from_words(1, 1), solo: false };
    let claimed = block_on(outbox.claim(claim)).unwrap();
    assert_eq!(claimed.entries.len(), 10);
    let stats = block_on(outbox.admin().unwrap().stats()).unwrap();
    assert_eq!((stats.claimed, stats.scheduled + stats.pending), (10, 19_990));
    assert!(
        stats.scheduled > 10_000,
        "20,000 that fall due at one moment are not moved by one claim: {stats:?}"
    );
}
