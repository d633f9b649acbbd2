//! A store that lost its last writes: fences and lists come back as they were.

use crate::support::{LEASE, ask, config, connection, message, server};
use pillarbox_core::{Content, Outcome, Settlements, Storage as _, TestClock, Verdict};
use pillarbox_redis::RedisStorage;

/// Everything under an outbox's tag, as a replica would have it.
async fn snapshot(name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut connection = connection(server()).await;
    let pattern = format!("{{{name}}}:*");
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap();
    let mut stored = Vec::new();
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
        stored.push((key, value));
    }
    stored
}

/// The writes since the snapshot are lost.
async fn fail_over(name: &str, stored: &[(Vec<u8>, Vec<u8>)]) {
    let mut connection = connection(server()).await;
    let mut replica = redis::pipe();
    replica.atomic();
    for (key, _) in snapshot(name).await {
        replica.cmd("DEL").arg(key).ignore();
    }
    for (key, value) in stored {
        replica.cmd("RESTORE").arg(key).arg(0).arg(value).ignore();
    }
    replica.exec_async(&mut connection).await.unwrap();
}

/// F32: two claimants hold the same fence, and the nonce tells them apart.
#[tokio::test]
async fn a_repeated_fence_is_told_apart_by_its_nonce() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(Some("b"))]).await.unwrap();
    let before = snapshot(outbox.name()).await;
    let lost = outbox.claim(ask(1)).await.unwrap();
    fail_over(outbox.name(), &before).await;
    let held = outbox.claim(ask(2)).await.unwrap();
    assert_eq!(lost.runs[0].token.fence, held.runs[0].token.fence);
    let mut call = Settlements::new();
    call.verdicts(lost.runs[0].token, [Verdict::Published]);
    assert_eq!(outbox.settle(&call).await.unwrap()[0].outcome, Outcome::Fenced);
    assert_eq!(outbox.renew(&[lost.runs[0].token], LEASE).await.unwrap()[0].outcome, Outcome::Fenced);
    call.clear();
    call.verdicts(held.runs[0].token, [Verdict::Published, Verdict::Published]);
    assert_eq!(outbox.settle(&call).await.unwrap()[0].outcome, Outcome::Applied);
}

/// A list that was given back without its lease's knowledge is not trimmed: what was not published stays.
#[tokio::test]
async fn a_list_that_was_rolled_back_is_not_trimmed() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let messages = [message(Some("a")), message(Some("a")), message(Some("a"))];
    outbox.enqueue_alone(&messages).await.unwrap();
    let lane = format!("{{{}}}:lane:0", outbox.name());
    let mut own = connection(server()).await;
    let list: Vec<u8> = redis::cmd("DUMP").arg(&lane).query_async(&mut own).await.unwrap();
    let mut call = Settlements::new();
    let claimed = outbox.claim(ask(1)).await.unwrap();
    call.verdicts(claimed.runs[0].token, [Verdict::Published]);
    outbox.settle(&call).await.unwrap();
    let claimed = outbox.claim(ask(1)).await.unwrap();
    // Somebody restores the list alone.
    redis::cmd("RESTORE").arg(&lane).arg(0).arg(list).arg("REPLACE").exec_async(&mut own).await.unwrap();
    call.clear();
    call.verdicts(claimed.runs[0].token, [Verdict::Published]);
    assert_eq!(outbox.settle(&call).await.unwrap()[0].outcome, Outcome::Fenced);
    clock.advance(LEASE * 2);
    let length: u64 = redis::cmd("LLEN").arg(&lane).query_async(&mut own).await.unwrap();
    assert_eq!(length, 3);
    // The suspicion that the expiry leaves is settled like any other; the order is kept.
    let mut solo = ask(1);
    solo.solo = true;
    let claimed = outbox.claim(solo).await.unwrap();
    let Content::Message(first) = &claimed.entries[0].content else { panic!("it is a message") };
    assert_eq!(first.id(), messages[0].id());
}
