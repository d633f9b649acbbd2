//! What is open for long stands in nobody's way: transactions of producers, and claims whose messages are being published.

use crate::support::{ask, ids, kept, mariadb, message, opened, postgres, settle_all, sqlite};
use pillarbox_core::{
    Claim, Enqueue, Filter, ListState, Listing, Message, Storage, TestClock, Text, Timestamp, Verdict,
};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::Transaction;
use std::time::Duration;

/// Everything that a relay and an administrator do, while a producer has enqueued and does not commit.
async fn an_open_transaction_stalls_nobody<D: Dialect>(config: SqlConfig<D>)
where
    SqlStorage<D>: Storage + for<'t> Enqueue<Transaction<'t, D>>,
{
    let clock = TestClock::new();
    // Far below any timeout of a lock.
    let config = config.test_clock(clock.clone()).response_timeout(Duration::from_secs(10));
    let outbox = opened(config).await;
    let admin = outbox.admin().unwrap();
    // Each open message has a place among those of the others.
    let mut open = outbox.pool().begin().await.unwrap();
    let mut uncommitted = Vec::new();
    let seconds = Duration::from_secs;
    for verdict in [
        Verdict::Published,
        Verdict::Retry { after: seconds(5), error: Text::from_static("no") },
        Verdict::Release { after: seconds(5) },
        Verdict::Release { after: Duration::ZERO },
        Verdict::Bury { reason: Text::from_static("no") },
    ] {
        for size in [1, 40] {
            let batch: Vec<_> = (0..size).map(|number| message((number % 2 == 0).then_some("key"))).collect();
            outbox.enqueue_alone(&batch).await.unwrap();
            let late = [message(Some("key")), message(None)];
            outbox.enqueue(&mut open, &late).await.unwrap();
            uncommitted.extend(late);
            let claimed = outbox.claim(ask(100)).await.unwrap();
            let tokens: Vec<_> = claimed.runs.iter().map(|run| run.token).collect();
            outbox.renew(&tokens, seconds(60)).await.unwrap();
            let mut call = pillarbox_core::Settlements::new();
            for run in &claimed.runs {
                // Of a key one message is retried or buried, and the others behind it go back.
                let mut is_first = true;
                let verdicts = claimed.entries_of(run).iter().map(|_| {
                    let verdict = if is_first || matches!(verdict, Verdict::Published | Verdict::Bury { .. })
                    {
                        verdict.clone()
                    } else {
                        Verdict::Release { after: Duration::ZERO }
                    };
                    is_first = false;
                    verdict
                });
                call.verdicts(run.token, verdicts.collect::<Vec<_>>());
            }
            outbox.settle(&call).await.unwrap();
            clock.advance(seconds(10));
        }
    }
    // A holder that died, suspects alone, and a message whose time has come.
    let scheduled = Message::to("t").deliver_at(Timestamp::EPOCH).payload("{}").unwrap();
    outbox.enqueue_alone(&[scheduled, message(Some("key"))]).await.unwrap();
    for _ in 0..3 {
        outbox.claim(ask(100)).await.unwrap();
        clock.advance(seconds(60));
    }
    let solo = outbox.claim(Claim { solo: true, ..ask(1) }).await.unwrap();
    settle_all(&outbox, &solo, &Verdict::Published).await;
    admin.stats().await.unwrap();
    for state in [ListState::Pending, ListState::Scheduled, ListState::Dead] {
        let listing = Listing { state, filter: Filter::all(), cursor: None, limit: 100 };
        admin.list(listing).await.unwrap();
    }
    admin.redrive(Filter::all(), 5, false).await.unwrap();
    admin.discard(Filter::all(), 1_000, false).await.unwrap();
    admin.purge_published(Duration::ZERO, 1_000).await.unwrap();
    drain(&outbox, &clock).await;

    open.commit().await.unwrap();
    let delivered = drain(&outbox, &clock).await;
    let mut expected: Vec<_> = uncommitted.iter().map(Message::id).collect();
    let mut delivered = delivered;
    delivered.sort_unstable();
    expected.sort_unstable();
    assert_eq!(delivered, expected, "what was open is delivered once it is committed");
}

/// Delivers everything, also what waits.
async fn drain<S: Storage>(outbox: &S, clock: &TestClock) -> Vec<pillarbox_core::MessageId> {
    let (mut delivered, mut empty) = (Vec::new(), 0);
    while empty < 3 {
        let mut claimed = outbox.claim(ask(100)).await.unwrap();
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claimed = outbox.claim(Claim { solo: true, ..ask(1) }).await.unwrap();
        }
        delivered.extend(ids(&claimed));
        settle_all(outbox, &claimed, &Verdict::Published).await;
        empty = if claimed.runs.is_empty() { empty + 1 } else { 0 };
        clock.advance(Duration::from_secs(60));
    }
    delivered
}

#[tokio::test]
async fn an_open_transaction_stalls_nobody_on_postgres() {
    for keep in [false, true] {
        an_open_transaction_stalls_nobody(postgres(&kept(keep))).await;
    }
}

#[tokio::test]
async fn an_open_transaction_stalls_nobody_on_mariadb() {
    for keep in [false, true] {
        an_open_transaction_stalls_nobody(mariadb(&kept(keep))).await;
    }
}

/// F18: a handle with one connection: a relay holds messages, and producers go on with that connection.
async fn nothing_is_held_while_messages_are_published<D: Dialect>(config: SqlConfig<D>)
where
    SqlStorage<D>: Storage + for<'t> Enqueue<Transaction<'t, D>>,
{
    let outbox = opened(config.max_connections(1).connect_timeout(Duration::from_secs(20))).await;
    outbox.enqueue_alone(&[message(Some("key"))]).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 1);
    let mut transaction = outbox.pool().begin().await.unwrap();
    outbox.enqueue(&mut transaction, &[message(Some("key"))]).await.unwrap();
    transaction.commit().await.unwrap();
    settle_all(&outbox, &claimed, &Verdict::Published).await;
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn nothing_is_held_while_messages_are_published_on_sqlite() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    nothing_is_held_while_messages_are_published(config).await;
}

#[tokio::test]
async fn nothing_is_held_while_messages_are_published_on_postgres() {
    nothing_is_held_while_messages_are_published(postgres(&OutboxSettings::default())).await;
}

#[tokio::test]
async fn nothing_is_held_while_messages_are_published_on_mariadb() {
    nothing_is_held_while_messages_are_published(mariadb(&OutboxSettings::default())).await;
}
