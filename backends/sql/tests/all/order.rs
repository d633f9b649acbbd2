//! Which order is kept: that of the inserts, F11.

use crate::support::{ask, ids, mariadb, message, opened, postgres, settle_all, sqlite};
use pillarbox_core::{Enqueue, ErrorKind, Message, MessageId, Order, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::Transaction;
use std::time::Duration;

async fn deliver<S: Storage>(outbox: &S) -> Vec<MessageId> {
    let claimed = outbox.claim(ask(100)).await.unwrap();
    settle_all(outbox, &claimed, &Verdict::Published).await;
    ids(&claimed)
}

fn pair() -> [Message; 2] {
    [message(Some("key")), message(Some("key"))]
}

/// Two transactions on one key, of which the first to insert commits last.
async fn commits_in_the_other_order<D: Dialect>(config: SqlConfig<D>)
where
    SqlStorage<D>: Storage + for<'t> Enqueue<Transaction<'t, D>>,
{
    let outbox = opened(config).await;
    assert_eq!(outbox.guarantees().order, Order::InsertOrdered);
    let begin = async || outbox.pool().begin().await.unwrap();

    // A relay comes between the commits: the late one is delivered late, and not lost.
    let [early, late] = pair();
    let (mut first, mut second) = (begin().await, begin().await);
    outbox.enqueue(&mut first, std::slice::from_ref(&late)).await.unwrap();
    outbox.enqueue(&mut second, std::slice::from_ref(&early)).await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(deliver(&outbox).await, [early.id()]);
    first.commit().await.unwrap();
    assert_eq!(deliver(&outbox).await, [late.id()]);

    // None comes between: the order of the inserts.
    let [one, two] = pair();
    let (mut first, mut second) = (begin().await, begin().await);
    outbox.enqueue(&mut first, std::slice::from_ref(&one)).await.unwrap();
    outbox.enqueue(&mut second, std::slice::from_ref(&two)).await.unwrap();
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(deliver(&outbox).await, [one.id(), two.id()]);

    // What the documentation advises: who updates the row of the aggregate first, enqueues in the order of commits.
    let name = outbox.name().to_owned();
    let table = format!("CREATE TABLE {name}_aggregate (id BIGINT PRIMARY KEY, version BIGINT)");
    let row = format!("INSERT INTO {name}_aggregate VALUES (1, 0)");
    let mut connection = outbox.pool().acquire().await.unwrap();
    D::script(&mut connection, table).await.unwrap();
    D::script(&mut connection, row).await.unwrap();
    drop(connection);
    let update = format!("UPDATE {name}_aggregate SET version = version + 1 WHERE id = 1");
    let [one, two] = pair();
    let mut first = begin().await;
    D::script(&mut first, update.clone()).await.unwrap();
    let second = tokio::spawn({
        let (outbox, two) = (outbox.clone(), two.clone());
        async move {
            let mut transaction = outbox.pool().begin().await.unwrap();
            D::script(&mut transaction, update).await.unwrap();
            outbox.enqueue(&mut transaction, &[two]).await.unwrap();
            transaction.commit().await.unwrap();
        }
    });
    tokio::task::yield_now().await;
    outbox.enqueue(&mut first, std::slice::from_ref(&one)).await.unwrap();
    assert!(!second.is_finished(), "the row is locked");
    first.commit().await.unwrap();
    second.await.unwrap();
    assert_eq!(deliver(&outbox).await, [one.id(), two.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_the_other_order_on_postgres() {
    commits_in_the_other_order(postgres(&OutboxSettings::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_the_other_order_on_mariadb() {
    commits_in_the_other_order(mariadb(&OutboxSettings::default())).await;
}

/// SQLite has one writer: the second transaction cannot insert before the first has ended, so both orders are one.
#[tokio::test]
async fn there_is_no_other_order_on_sqlite() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    let outbox = opened(config.response_timeout(Duration::from_millis(400))).await;
    let [one, two] = pair();
    let mut first = outbox.pool().begin().await.unwrap();
    outbox.enqueue(&mut first, std::slice::from_ref(&one)).await.unwrap();
    let mut second = outbox.pool().begin().await.unwrap();
    let busy = outbox.enqueue(&mut second, std::slice::from_ref(&two)).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Unavailable, "{}", busy.report());
    second.rollback().await.unwrap();
    first.commit().await.unwrap();
    outbox.enqueue_alone(std::slice::from_ref(&two)).await.unwrap();
    assert_eq!(deliver(&outbox).await, [one.id(), two.id()]);
}

/// Two claims with one nonce at the same time, as when a relay repeats one whose answer it lost while the first is still under way: both
/// answer the same runs, and no lane is held by a claim that nobody knows of.
async fn claims_of_one_nonce_are_one_claim<D: Dialect>(config: SqlConfig<D>)
where
    SqlStorage<D>: Storage,
{
    let outbox = opened(config.clone()).await;
    let other = SqlStorage::connect(config).await.unwrap();
    let messages: Vec<_> = (0..200).map(|number| message(Some(&format!("key-{number}")))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    for _ in 0..20 {
        let claim = ask(20);
        let (one, two) = tokio::join!(outbox.claim(claim), other.claim(claim));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.entries.len(), 20);
        let tokens = |claimed: &pillarbox_core::Claimed| {
            let mut tokens: Vec<_> =
                claimed.runs.iter().map(|run| (run.token.unit, run.token.fence)).collect();
            tokens.sort_unstable();
            tokens
        };
        assert_eq!(tokens(&one), tokens(&two));
        let stats = outbox.admin().unwrap().stats().await.unwrap();
        assert_eq!(stats.claimed, 20, "nothing else is held");
        let mut call = pillarbox_core::Settlements::new();
        one.runs.iter().for_each(|run| call.hand_back(run.token, Duration::ZERO));
        outbox.settle(&call).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_one_nonce_are_one_claim_on_sqlite() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    claims_of_one_nonce_are_one_claim(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_one_nonce_are_one_claim_on_postgres() {
    claims_of_one_nonce_are_one_claim(postgres(&OutboxSettings::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_one_nonce_are_one_claim_on_mariadb() {
    claims_of_one_nonce_are_one_claim(mariadb(&OutboxSettings::default())).await;
}
