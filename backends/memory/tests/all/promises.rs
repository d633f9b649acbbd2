//! What this storage promises beyond the suite.

use futures_executor::block_on;
use pillarbox_core::{
    Claim, Claimed, Listing, Message, MessageId, Nonce, Outcome, Settlements, Storage, Text, Timestamp,
    Token, Verdict,
};
use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

fn message(number: u32) -> Message {
    let id = MessageId::from_bytes(u128::from(number).to_be_bytes());
    Message::given(id, Timestamp::EPOCH, "orders").payload("").unwrap()
}

fn claim(outbox: &MemoryStorage, number: u64) -> Claimed {
    let claim = Claim { limit: 1, lease: LEASE, nonce: Nonce::from_words(1, number), solo: false };
    block_on(outbox.claim(claim)).unwrap()
}

fn publish(outbox: &MemoryStorage, token: Token) -> Outcome {
    let mut settlements = Settlements::new();
    settlements.verdicts(token, [Verdict::Published]);
    block_on(outbox.settle(&settlements)).unwrap()[0].outcome
}

#[test]
fn a_clock_that_steps_back_ends_no_lease_and_moves_no_time_back() {
    let source = Arc::new(AtomicI64::new(1_000_000_000));
    let shared = Arc::clone(&source);
    let clock = MemoryClock::from_source(move || Timestamp::from_micros(shared.load(Ordering::SeqCst)));
    let outbox = MemoryStorage::open(MemoryConfig::with_clock(clock)).unwrap();
    outbox.enqueue_alone(&[message(1)]).unwrap();
    let claimed = claim(&outbox, 1);
    source.store(0, Ordering::SeqCst);
    let later = claim(&outbox, 2);
    assert!(later.now >= claimed.now && later.runs.is_empty());
    let renewed = block_on(outbox.renew(&[claimed.runs[0].token], LEASE)).unwrap()[0];
    assert_eq!(renewed.lease_until, Some(claimed.runs[0].lease_until));
}

#[test]
fn the_last_16384_settled_runs_are_remembered_and_no_more() {
    let outbox =
        MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH))).unwrap();
    let mut tokens = Vec::new();
    for number in 0..16_385 {
        outbox.enqueue_alone(&[message(number)]).unwrap();
        let token = claim(&outbox, u64::from(number)).runs[0].token;
        assert_eq!(publish(&outbox, token), Outcome::Applied);
        tokens.push(token);
    }
    assert_eq!(publish(&outbox, tokens[0]), Outcome::Fenced);
    assert_eq!(publish(&outbox, tokens[1]), Outcome::AlreadyApplied);
    assert_eq!(publish(&outbox, tokens[16_384]), Outcome::AlreadyApplied);
}

#[test]
fn runs_are_at_most_as_long_as_the_setting() {
    let config = MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH)).max_run(3);
    let outbox = MemoryStorage::open(config).unwrap();
    outbox.enqueue_alone(&(0..10).map(message).collect::<Vec<_>>()).unwrap();
    let claim = Claim { limit: 10, lease: LEASE, nonce: Nonce::from_words(1, 1), solo: false };
    let claimed = block_on(outbox.claim(claim)).unwrap();
    let lengths: Vec<_> = claimed.runs.iter().map(|run| run.len).collect();
    assert_eq!(lengths, [3, 3, 3, 1]);
}

#[test]
fn a_cursor_of_another_store_is_refused_by_name() {
    let outbox =
        MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH))).unwrap();
    let listing = Listing {
        state: pillarbox_core::ListState::Dead,
        filter: pillarbox_core::Filter::all(),
        cursor: Some(pillarbox_core::Cursor(Text::from_static("elsewhere"))),
        limit: 10,
    };
    let error = block_on(outbox.admin().unwrap().list(listing)).unwrap_err();
    assert!(error.to_string().contains("cursor"), "{error}");
}
