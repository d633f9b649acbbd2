//! Side by side with the original on its own table.

use crate::support::{ask, fresh_name, message, postgres_server, settle_all};
use pillarbox_core::{
    Admin as _, Claimed, Enqueue as _, EnqueueAlone as _, ErrorKind, Filter, Outcome, Settlements,
    Storage as _, TestClock, Text, Verdict,
};
use pillarbox_sql::SpakkyStorage;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(300);

/// The table, in a database of the test's own, and its URL.
async fn table() -> String {
    let name = fresh_name();
    let admin = PgPool::connect(&postgres_server().url()).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    let url = postgres_server()
        .url()
        .replace("/postgres", &format!("/{name}"))
        .replace(&format!("/{name}:"), "/postgres:");
    let url = url.replace(&format!("//{name}@"), "//postgres@");
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query(
        "CREATE TABLE spakky_event_outbox (id uuid PRIMARY KEY, event_name text NOT NULL, payload bytea NOT NULL, headers json, \
         created_at timestamptz NOT NULL, published_at timestamptz, retry_count integer NOT NULL DEFAULT 0, claimed_at timestamptz)",
    )
    .execute(&pool)
    .await
    .unwrap();
    format!("{url}?outbox.layout=spakky")
}

/// The original's claim, by its own clock.
async fn original_claims(pool: &PgPool, limit: i64, now: SystemTime) -> Vec<Uuid> {
    let micros = |time: SystemTime| {
        i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap()
    };
    let rows = sqlx::query(
        "UPDATE spakky_event_outbox SET claimed_at = timestamptz 'epoch' + $1 * interval '1 microsecond' WHERE id IN (\
         SELECT id FROM spakky_event_outbox WHERE published_at IS NULL AND retry_count < 5 \
         AND (claimed_at IS NULL OR claimed_at < timestamptz 'epoch' + $2 * interval '1 microsecond') \
         ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING id",
    )
    .bind(micros(now))
    .bind(micros(now - TIMEOUT))
    .bind(limit)
    .fetch_all(pool)
    .await
    .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn ids(claimed: &Claimed) -> Vec<Uuid> {
    let entries = claimed.entries.iter();
    entries
        .filter_map(|entry| match &entry.content {
            pillarbox_core::Content::Message(message) => Some(*message.id().as_uuid()),
            pillarbox_core::Content::Undecodable(_) => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_claimed_by_both() {
    let url = table().await;
    let ours = SpakkyStorage::open(&url).await.unwrap();
    let sent: Vec<_> = (0..600).map(|_| message(None)).collect();
    ours.enqueue_alone(&sent).await.unwrap();
    let pool = ours.pool().clone();
    let original = tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            let some = original_claims(&pool, 7, SystemTime::now()).await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    });
    let mut all = Vec::new();
    loop {
        let claimed = ours.claim(ask(7)).await.unwrap();
        if claimed.entries.is_empty() {
            break;
        }
        all.extend(ids(&claimed));
        settle_all(&ours, &claimed, &Verdict::Published).await;
    }
    let theirs = original.await.unwrap();
    let distinct: HashSet<Uuid> = all.iter().chain(&theirs).copied().collect();
    assert_eq!((distinct.len(), all.len() + theirs.len()), (600, 600), "each claimed once");
    assert!(!all.is_empty() && !theirs.is_empty(), "both took part: {} and {}", all.len(), theirs.len());
    let stats = ours.stats().await.unwrap();
    assert_eq!((stats.published, stats.claimed), (all.len() as u64, theirs.len() as u64));
}

#[tokio::test]
async fn each_waits_for_the_claim_timeout_of_the_other() {
    let url = table().await;
    let clock = TestClock::new();
    let ours = SpakkyStorage::open_at(&url, clock.clone()).await.unwrap();
    ours.enqueue_alone(&[message(None)]).await.unwrap();
    let claimed = ours.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 1);
    let now = SystemTime::now();
    assert!(original_claims(ours.pool(), 10, now + TIMEOUT / 2).await.is_empty(), "our claim is respected");
    // Renewed, it holds for longer than the first claim would have.
    clock.advance(TIMEOUT / 2);
    let token = claimed.runs[0].token;
    assert_eq!(ours.renew(&[token], TIMEOUT).await.unwrap()[0].outcome, Outcome::Applied);
    assert!(original_claims(ours.pool(), 10, now + TIMEOUT + TIMEOUT / 4).await.is_empty());
    // Lapsed, it is the original's, and our late settlement changes nothing.
    assert_eq!(original_claims(ours.pool(), 10, now + 2 * TIMEOUT).await.len(), 1);
    assert_eq!(ours.renew(&[token], TIMEOUT).await.unwrap()[0].outcome, Outcome::Fenced);
    let mut call = Settlements::new();
    call.verdicts(token, [Verdict::Published]);
    assert_eq!(ours.settle(&call).await.unwrap()[0].outcome, Outcome::Fenced);
    assert!(ours.claim(ask(10)).await.unwrap().entries.is_empty(), "the original's claim is respected");
}

#[tokio::test]
async fn verdicts_are_what_the_original_reads() {
    let url = table().await;
    let clock = TestClock::new();
    let ours = SpakkyStorage::open_at(&url, clock.clone()).await.unwrap();
    let one = message(None);
    let mut transaction = ours.pool().begin().await.unwrap();
    ours.enqueue(&mut transaction, std::slice::from_ref(&one)).await.unwrap();
    transaction.commit().await.unwrap();
    let retry = Verdict::Retry { after: Duration::from_secs(60), error: Text::from_static("no") };
    for attempts in 0..3 {
        let claimed = ours.claim(ask(10)).await.unwrap();
        assert_eq!(claimed.entries[0].attempts, attempts);
        assert_eq!(ids(&claimed), [*one.id().as_uuid()]);
        settle_all(&ours, &claimed, &retry).await;
        let early = ours.claim(ask(10)).await.unwrap();
        assert!(early.entries.is_empty() && early.next_due.unwrap() > early.now, "it waits for its retry");
        clock.advance(Duration::from_secs(61));
    }
    let claim = ask(10);
    let claimed = ours.claim(claim).await.unwrap();
    assert_eq!(
        ours.claim(claim).await.unwrap().runs,
        claimed.runs,
        "the claim repeated answers the same run"
    );
    settle_all(&ours, &claimed, &Verdict::Bury { reason: Text::from_static("given up") }).await;
    let later = SystemTime::now() + 10 * TIMEOUT;
    assert!(original_claims(ours.pool(), 10, later).await.is_empty(), "dead for the original too");
    assert_eq!(ours.stats().await.unwrap().dead, 1);
    assert_eq!(ours.redrive(Filter::id(one.id()), 10, false).await.unwrap().count, 1);
    assert_eq!(original_claims(ours.pool(), 10, later).await.len(), 1);
}

#[tokio::test]
async fn what_the_table_has_no_column_for_is_refused() {
    let url = table().await;
    let ours = SpakkyStorage::open(&url).await.unwrap();
    let refused = ours.enqueue_alone(&[message(None), message(Some("order-1"))]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    assert!(refused.to_string().contains("ordering key"), "{refused}");
    assert_eq!(ours.stats().await.unwrap().pending, 0);
    let wrong = SpakkyStorage::open(&postgres_server().url().replace("?", "")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Misconfigured);
    let missing = format!("{}?outbox.layout=spakky", postgres_server().url());
    let missing = SpakkyStorage::open(&missing).await.unwrap_err();
    assert!(missing.to_string().contains("spakky_event_outbox"), "{missing}");
}
