//! Side by side with the original on its own table.

use crate::support::{ask, fresh_name, message, postgres_server, settle_all};
use pillarbox_core::{
    Admin as _, Claimed, Enqueue as _, EnqueueAlone as _, ErrorKind, Filter, Outcome, Settlements,
    Storage as _, TestClock, Text, Verdict,
};
use pillarbox_sql::SpakkyStorage;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_RETRIES: i32 = 5;

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

/// The original's relay: a client of its own, with the clock of its own machine.
struct Original {
    pool: PgPool,
    now: SystemTime,
}

fn micros(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

impl Original {
    async fn start(url: &str) -> Self {
        let (url, _) = url.split_once('?').unwrap();
        Self { pool: PgPool::connect(url).await.unwrap(), now: SystemTime::now() }
    }

    async fn enqueue(&self) -> Uuid {
        let id = *pillarbox_core::MessageId::generate().as_uuid();
        let sql = "INSERT INTO spakky_event_outbox (id, event_name, payload, headers, created_at, published_at, retry_count, claimed_at) \
                   VALUES ($1, 'OrderCreated', '\\x7b7d', '{\"tenant\": \"a\"}', now(), NULL, 0, NULL)";
        sqlx::query(sql).bind(id).execute(&self.pool).await.unwrap();
        id
    }

    async fn claim(&self, limit: i64) -> Vec<Uuid> {
        let rows = sqlx::query(
            "UPDATE spakky_event_outbox SET claimed_at = timestamptz 'epoch' + $1 * interval '1 microsecond' WHERE id IN (\
             SELECT id FROM spakky_event_outbox WHERE published_at IS NULL AND retry_count < $4 \
             AND (claimed_at IS NULL OR claimed_at < timestamptz 'epoch' + $2 * interval '1 microsecond') \
             ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED) \
             RETURNING id, event_name, payload, headers, created_at, published_at, retry_count, claimed_at",
        )
        .bind(micros(self.now))
        .bind(micros(self.now - TIMEOUT))
        .bind(limit)
        .bind(MAX_RETRIES)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn published(&self, id: Uuid) {
        let sql = "UPDATE spakky_event_outbox SET published_at = timestamptz 'epoch' + $2 * interval '1 microsecond' WHERE id = $1";
        sqlx::query(sql).bind(id).bind(micros(self.now)).execute(&self.pool).await.unwrap();
    }

    async fn failed(&self, id: Uuid) {
        let sql = "UPDATE spakky_event_outbox SET retry_count = retry_count + 1 WHERE id = $1";
        sqlx::query(sql).bind(id).execute(&self.pool).await.unwrap();
    }
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
    let original = Original::start(&url).await;
    // Each begins before the other has drained the table.
    let first = ours.claim(ask(7)).await.unwrap();
    let mut all = original.claim(7).await;
    assert_eq!(all.len(), 7);
    let original = tokio::spawn(async move {
        loop {
            let some = original.claim(7).await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    });
    let mut all = ids(&first);
    assert_eq!(all.len(), 7);
    settle_all(&ours, &first, &Verdict::Published).await;
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

/// Which message fails at its first attempts: every seventh of those that are enqueued, by its id.
fn fails(id: Uuid, attempt: u32) -> bool {
    id.as_bytes()[15].is_multiple_of(7) && attempt < 2
}

/// Both relays run on one table, each by its own statements and its own rules, until it is drained: what one of them has sent the other
/// never sends, failures of both are counted in one place, and messages of both are sent by both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_original_and_ours_drain_one_table() {
    let url = table().await;
    let clock = TestClock::new();
    let ours = SpakkyStorage::open_at(&url, clock.clone()).await.unwrap();
    let mut original = Original::start(&url).await;
    let mut enqueued = HashSet::new();
    for _ in 0..100 {
        enqueued.insert(original.enqueue().await);
        let message = message(None);
        ours.enqueue_alone(std::slice::from_ref(&message)).await.unwrap();
        enqueued.insert(*message.id().as_uuid());
    }
    let attempts: Arc<Mutex<HashMap<Uuid, u32>>> = Arc::default();
    let attempt = |attempts: &Mutex<HashMap<Uuid, u32>>, id: Uuid| {
        let mut attempts = attempts.lock().unwrap();
        let count = attempts.entry(id).or_default();
        *count += 1;
        *count - 1
    };
    let (mut by_original, mut by_ours) = (Vec::new(), Vec::new());
    // Three rounds: a failure of the original waits for its claim timeout.
    for round in 0..3 {
        // Each begins before the other has drained the table.
        let mut first = match round {
            0 => Some(ours.claim(ask(7)).await.unwrap()),
            _ => None,
        };
        let running = tokio::spawn({
            let attempts = Arc::clone(&attempts);
            async move {
                let mut sent = Vec::new();
                loop {
                    let claimed = original.claim(7).await;
                    if claimed.is_empty() {
                        return (original, sent);
                    }
                    for id in claimed {
                        if fails(id, attempt(&attempts, id)) {
                            original.failed(id).await;
                        } else {
                            sent.push(id);
                            original.published(id).await;
                        }
                    }
                }
            }
        });
        loop {
            let claimed = match first.take() {
                Some(first) => first,
                None => ours.claim(ask(7)).await.unwrap(),
            };
            if claimed.entries.is_empty() {
                break;
            }
            let retry = Verdict::Retry { after: Duration::from_secs(1), error: Text::from_static("no") };
            let mut call = Settlements::new();
            let verdicts = ids(&claimed).into_iter().map(|id| match fails(id, attempt(&attempts, id)) {
                true => retry.clone(),
                false => {
                    by_ours.push(id);
                    Verdict::Published
                }
            });
            call.verdicts(claimed.runs[0].token, verdicts.collect::<Vec<_>>());
            assert_eq!(ours.settle(&call).await.unwrap()[0].outcome, Outcome::Applied);
        }
        let (ended, sent) = running.await.unwrap();
        original = ended;
        by_original.extend(sent);
        original.now += 2 * TIMEOUT;
        clock.advance(2 * TIMEOUT);
    }
    let distinct: HashSet<Uuid> = by_original.iter().chain(&by_ours).copied().collect();
    assert_eq!(distinct, enqueued, "each was sent");
    assert_eq!(by_original.len() + by_ours.len(), 200, "each was sent once");
    assert!(!by_original.is_empty() && !by_ours.is_empty(), "{} and {}", by_original.len(), by_ours.len());
    let stats = ours.stats().await.unwrap();
    assert_eq!((stats.published, stats.pending, stats.claimed, stats.dead), (200, 0, 0, 0));
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM spakky_event_outbox WHERE retry_count <> CASE WHEN get_byte(uuid_send(id), 15) % 7 = 0 THEN 2 ELSE 0 END",
    )
    .fetch_one(&original.pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "failures of both are counted");
}

/// Spakky's own statements settle in no particular order of rows; ours is tried again when the two collide.
#[tokio::test]
async fn collisions_with_the_original_are_tried_again() {
    let url = table().await;
    let ours = SpakkyStorage::open(&url).await.unwrap();
    sqlx::raw_sql(
        "CREATE SEQUENCE tries; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('tries') % 3 <> 0 THEN RAISE EXCEPTION 'collided' USING ERRCODE = '40P01'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON spakky_event_outbox FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    .execute(ours.pool())
    .await
    .unwrap();
    ours.enqueue_alone(&[message(None)]).await.unwrap();
    let claimed = ours.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 1);
    assert_eq!(ours.renew(&[claimed.runs[0].token], TIMEOUT).await.unwrap()[0].outcome, Outcome::Applied);
    settle_all(&ours, &claimed, &Verdict::Published).await;
    assert_eq!(ours.stats().await.unwrap().published, 1);
}

#[tokio::test]
async fn each_waits_for_the_claim_timeout_of_the_other() {
    let url = table().await;
    let clock = TestClock::new();
    let ours = SpakkyStorage::open_at(&url, clock.clone()).await.unwrap();
    ours.enqueue_alone(&[message(None)]).await.unwrap();
    let claimed = ours.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 1);
    let mut original = Original::start(&url).await;
    let now = original.now;
    original.now = now + TIMEOUT / 2;
    assert!(original.claim(10).await.is_empty(), "our claim is respected");
    // Renewed, it holds for longer than the first claim would have.
    clock.advance(TIMEOUT / 2);
    let token = claimed.runs[0].token;
    assert_eq!(ours.renew(&[token], TIMEOUT).await.unwrap()[0].outcome, Outcome::Applied);
    original.now = now + TIMEOUT + TIMEOUT / 4;
    assert!(original.claim(10).await.is_empty());
    // Lapsed, it is the original's, and our late settlement changes nothing.
    original.now = now + 2 * TIMEOUT;
    assert_eq!(original.claim(10).await.len(), 1);
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
    let mut original = Original::start(&url).await;
    original.now += 10 * TIMEOUT;
    assert!(original.claim(10).await.is_empty(), "dead for the original too");
    assert_eq!(ours.stats().await.unwrap().dead, 1);
    assert_eq!(ours.redrive(Filter::id(one.id()), 10, false).await.unwrap().count, 1);
    assert_eq!(original.claim(10).await.len(), 1);
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
