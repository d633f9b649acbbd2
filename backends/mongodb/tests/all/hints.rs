//! The stream behind the hints: one for all subscribers of a handle, and none while relays have enough to do.

use crate::support::{SHOP, ask, client, fresh_name, message, server};
use mongodb::Client;
use mongodb::bson::doc;
use pillarbox_core::{Hints, Settlements, Storage as _, Verdict};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// The server looks through what runs and what is idle one after the other, and misses a stream that changes from one to the other
/// meanwhile. It does not so often in a row.
const LOOKS: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_of_one_handle_share_a_stream() {
    let (client, outbox) = opened().await;
    let wakeup = outbox.wakeup().unwrap();
    let mut subscribers: Vec<_> = (0..8).map(|_| wakeup.subscribe()).collect();
    for hints in &mut subscribers {
        hinted(&mut **hints).await;
    }
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    for hints in &mut subscribers {
        hinted(&mut **hints).await;
    }
    streams_become(&client, &outbox, 1).await;
    drop(subscribers);
    streams_become(&client, &outbox, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_while_every_claim_is_full_and_comes_back_with_what_it_missed() {
    let (client, outbox) = opened().await;
    let mut hints = outbox.wakeup().unwrap().subscribe();
    hinted(&mut *hints).await;
    streams_become(&client, &outbox, 1).await;
    // One message for each claim, as long as it takes.
    let (begun, mut without) = (Instant::now(), 0);
    while without < LOOKS {
        assert!(begun.elapsed() < PATIENCE, "the stream is still there");
        outbox.enqueue_alone(&[message(None)]).await.unwrap();
        assert_eq!(take(&outbox).await, 1);
        without = if streams(&client, &outbox).await == 0 { without + 1 } else { 0 };
    }
    // What came last may still be hinted at; nothing else is while nobody listens.
    while tokio::time::timeout(Duration::ZERO, hints.hinted()).await.is_ok() {}
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    assert_eq!(take(&outbox).await, 1);
    assert!(tokio::time::timeout(Duration::ZERO, hints.hinted()).await.is_err());
    // A claim that finds too little wants hints again, and of what has come since it looked too.
    assert_eq!(take(&outbox).await, 0);
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    hinted(&mut *hints).await;
    streams_become(&client, &outbox, 1).await;
}

async fn opened() -> (Client, MongoStorage) {
    let config = MongoConfig::from_url(&server().url(SHOP)).unwrap().name(fresh_name());
    let outbox = MongoStorage::connect(config.response_timeout(Duration::from_secs(120))).await.unwrap();
    (client(server()).await, outbox)
}

async fn hinted(hints: &mut dyn Hints) {
    tokio::time::timeout(PATIENCE, hints.hinted()).await.unwrap();
}

/// Claims one message and publishes it. Answers whether there was one.
async fn take(outbox: &MongoStorage) -> usize {
    let claimed = outbox.claim(ask(1)).await.unwrap();
    let mut settlements = Settlements::new();
    for run in &claimed.runs {
        settlements.verdicts(run.token, claimed.entries_of(run).iter().map(|_| Verdict::Published));
    }
    outbox.settle(&settlements).await.unwrap();
    claimed.entries.len()
}

/// How many change streams the server has of this outbox.
async fn streams(client: &Client, outbox: &MongoStorage) -> usize {
    let pipeline = [
        doc! { "$currentOp": { "idleCursors": true } },
        doc! { "$match": {
            "cursor.originatingCommand.aggregate": format!("{}.messages", outbox.name()),
            "cursor.originatingCommand.pipeline.$changeStream": { "$exists": true },
        } },
    ];
    let mut found = client.database("admin").aggregate(pipeline).await.unwrap();
    // One that changes from running to idle meanwhile is told twice.
    let mut ids = HashSet::new();
    while found.advance().await.unwrap() {
        ids.insert(found.current().get_document("cursor").unwrap().get_i64("cursorId").unwrap());
    }
    ids.len()
}

async fn streams_become(client: &Client, outbox: &MongoStorage, wanted: usize) {
    let begun = Instant::now();
    loop {
        let found = streams(client, outbox).await;
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found} streams");
    }
}
