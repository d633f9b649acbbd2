//! Admin, where lanes are special.

use crate::support::{ask, config, message, settle_all};
use pillarbox_core::{
    Cursor, ErrorKind, Filter, HeadPolicy, ListState, Listing, Message, Storage as _, TestClock, Text,
    Verdict,
};
use pillarbox_redis::RedisStorage;
use std::time::Duration;

fn listing(state: ListState, limit: u32) -> Listing {
    Listing { state, filter: Filter::all(), cursor: None, limit }
}

#[tokio::test]
async fn what_cannot_be_listed_is_told() {
    let outbox = RedisStorage::connect(config(&TestClock::new())).await.unwrap();
    let admin = outbox.admin().unwrap();
    let filtered = Listing {
        filter: Filter { topic: Some("t".into()), ..Filter::all() },
        ..listing(ListState::Pending, 1)
    };
    let foreign = Listing { cursor: Some(Cursor("nowhere".into())), ..listing(ListState::Dead, 1) };
    for listing in [filtered, foreign, listing(ListState::Dead, 0), listing(ListState::Dead, 1_001)] {
        assert_eq!(admin.list(listing).await.unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}

#[tokio::test]
async fn pages_walk_over_all_lanes_and_pass_what_is_claimed() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let messages: Vec<_> = (0..100).map(|number| message(Some(&format!("key-{number}")))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut next = listing(ListState::Pending, 7);
    loop {
        let page = outbox.admin().unwrap().list(next).await.unwrap();
        assert!(page.messages.len() <= 7);
        seen.extend(page.messages.iter().filter_map(pillarbox_core::Stored::id));
        let Some(cursor) = page.next else { break };
        next = Listing { cursor: Some(cursor), ..listing(ListState::Pending, 7) };
    }
    assert_eq!(seen.len(), 90);
    settle_all(&outbox, &claimed, &Verdict::Published).await;
}

#[tokio::test]
async fn a_filter_reaches_behind_many_others() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let mut messages: Vec<_> = (0..700).map(|_| message(None)).collect();
    messages.push(Message::to("rare").payload("").unwrap());
    outbox.enqueue_alone(&messages).await.unwrap();
    for _ in 0..10 {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        settle_all(&outbox, &claimed, &Verdict::Bury { reason: Text::from("no") }).await;
    }
    let admin = outbox.admin().unwrap();
    let rare = Filter { topic: Some("rare".into()), ..Filter::all() };
    let common = Filter { topic: Some("orders.created".into()), ..Filter::all() };
    let dry = admin.redrive(rare.clone(), 10, true).await.unwrap();
    assert_eq!((dry.count, dry.more), (1, false));
    let some = admin.discard(common.clone(), 250, false).await.unwrap();
    assert_eq!((some.count, some.more), (250, true));
    let rest = admin.discard(common, 1_000, false).await.unwrap();
    assert_eq!((rest.count, rest.more), (450, false));
    assert_eq!(admin.redrive(rare, 10, false).await.unwrap().count, 1);
    assert_eq!(admin.stats().await.unwrap().dead, 0);
}

#[tokio::test]
async fn a_copy_of_an_id_is_a_message_of_its_own() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let one = message(Some("a"));
    outbox.enqueue_alone(&[one.clone(), one.clone()]).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    settle_all(&outbox, &claimed, &Verdict::Bury { reason: Text::from("no") }).await;
    let admin = outbox.admin().unwrap();
    assert_eq!(admin.stats().await.unwrap().dead, 2);
    assert_eq!(admin.discard(Filter::id(one.id()), 1, false).await.unwrap().count, 1);
    assert_eq!(admin.redrive(Filter::id(one.id()), 10, false).await.unwrap().count, 1);
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_blocked_key_is_listed_and_freed() {
    let clock = TestClock::new();
    let config = config(&clock).head_policy(HeadPolicy::Block);
    let outbox = RedisStorage::connect(config).await.unwrap();
    let first = message(Some("a"));
    outbox.enqueue_alone(std::slice::from_ref(&first)).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    settle_all(&outbox, &claimed, &Verdict::Bury { reason: Text::from("no") }).await;
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    clock.advance(Duration::from_secs(10_000));
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 0);
    let admin = outbox.admin().unwrap();
    let mut next = Some(listing(ListState::Scheduled, 10));
    let mut found = Vec::new();
    while let Some(listing) = next.take() {
        let page = admin.list(listing.clone()).await.unwrap();
        found.extend(page.messages);
        next = page.next.map(|cursor| Listing { cursor: Some(cursor), ..listing });
    }
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|stored| stored.due_at.is_none()));
    assert_eq!(admin.discard(Filter::id(first.id()), 1, false).await.unwrap().count, 1);
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 2);
}
