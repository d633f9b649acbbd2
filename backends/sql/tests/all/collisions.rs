//! Transactions of the outbox that collide with others: they are run again, and nobody hears of it.

use crate::support::{
    ask, mariadb, mariadb_server, message, opened, postgres, postgres_server, settle_all, sqlite,
};
use pillarbox_core::{Effect, ErrorKind, Outcome, Settlements, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::OutboxSettings;
use std::time::Duration;

/// An outbox with a claim of two lanes, the settlement of both, and the lanes from the lowest up.
async fn two_lanes<D: Dialect>(config: SqlConfig<D>) -> (SqlStorage<D>, Settlements, [u64; 2])
where
    SqlStorage<D>: Storage,
{
    let outbox = opened(config).await;
    let messages: Vec<_> = (0..40).map(|number| message(Some(&format!("key-{number}")))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let claimed = outbox.claim(ask(40)).await.unwrap();
    assert!(claimed.runs.len() > 1, "forty keys are in several lanes");
    let mut call = Settlements::new();
    let mut lanes = Vec::new();
    for run in &claimed.runs[..2] {
        call.verdicts(run.token, vec![Verdict::Published; run.len as usize]);
        lanes.push(run.token.unit);
    }
    lanes.sort_unstable();
    (outbox, call, [lanes[0], lanes[1]])
}

/// Settles while another transaction holds the upper lane and then asks for the lower one: a deadlock, of which the settlement is
/// the victim. `waits` counts the sessions that wait for a lock of this outbox.
async fn settle_in_a_deadlock<D: Dialect>(
    outbox: &SqlStorage<D>,
    call: Settlements,
    [low, high]: [u64; 2],
    prepare: &str,
    waits: &str,
) where
    SqlStorage<D>: Storage,
{
    let mut other = outbox.pool().acquire().await.unwrap();
    let lock = |lane: u64| format!("UPDATE {}_lane SET renewed = renewed WHERE lane = {lane}", outbox.name());
    D::script(&mut other, prepare.to_owned()).await.unwrap();
    D::script(&mut other, lock(high)).await.unwrap();
    let settling = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.settle(&call).await }
    });
    let mut watcher = outbox.pool().acquire().await.unwrap();
    let begun = std::time::Instant::now();
    while D::int(&D::query(&mut watcher, waits.to_owned(), Vec::new(), false).await.unwrap()[0], 0).unwrap()
        == Some(0)
    {
        assert!(begun.elapsed() < Duration::from_secs(15), "the settlement does not wait for the lane");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    D::script(&mut other, lock(low)).await.unwrap();
    D::script(&mut other, "COMMIT".to_owned()).await.unwrap();
    let settled = settling.await.unwrap().unwrap();
    assert_eq!(settled.iter().map(|settled| settled.outcome).collect::<Vec<_>>(), [Outcome::Applied; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_on_postgres_is_tried_again() {
    let (outbox, call, lanes) = two_lanes(postgres(&OutboxSettings::default())).await;
    // Who waits for longest is the victim; the other one never looks for deadlocks.
    let prepare = "BEGIN; SET LOCAL deadlock_timeout = '1h'";
    let table = format!("{}_lane", outbox.name());
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{table}%FOR UPDATE%' AND pid <> pg_backend_pid()"
    );
    settle_in_a_deadlock(&outbox, call, lanes, prepare, &waits).await;
    let log = postgres_server().process().log();
    let victim = log.split("deadlock detected").skip(1).any(|after| after.contains(&table));
    assert!(victim, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_on_mariadb_is_tried_again() {
    let (outbox, call, lanes) = two_lanes(mariadb(&OutboxSettings::default())).await;
    let name = outbox.name();
    // The one that has changed less is the victim.
    let prepare = format!(
        "SET GLOBAL innodb_print_all_deadlocks = ON; CREATE TABLE {name}_weight (number BIGINT) ENGINE = InnoDB; START TRANSACTION; \
         INSERT INTO {name}_weight SELECT seq FROM seq_1_to_1000"
    );
    // A query that takes so long waits.
    let waits = format!(
        "SELECT CAST(count(*) AS SIGNED) FROM information_schema.processlist WHERE time_ms > 300 AND info LIKE '%{name}_lane%FOR UPDATE%' AND id <> connection_id()"
    );
    settle_in_a_deadlock(&outbox, call, lanes, &prepare, &waits).await;
    let log = mariadb_server().process().log();
    let victim = log.split("deadlock detected").skip(1).any(|after| after.contains(&format!("{name}_lane")));
    assert!(victim, "{log}");
}

/// Enqueues, claims and settles one message while something fails twice out of three times: in the enqueueing, or in a claim and its
/// settlement.
async fn goes_through<D: Dialect>(outbox: &SqlStorage<D>, failures: &str)
where
    SqlStorage<D>: Storage,
{
    outbox.enqueue_alone(&[message(Some("key"))]).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 1);
    let token = claimed.runs[0].token;
    assert_eq!(outbox.renew(&[token], Duration::from_secs(60)).await.unwrap()[0].outcome, Outcome::Applied);
    settle_all(outbox, &claimed, &Verdict::Published).await;
    assert!(outbox.claim(ask(10)).await.unwrap().entries.is_empty());
    let mut connection = outbox.pool().acquire().await.unwrap();
    let counted = D::query(&mut connection, failures.to_owned(), Vec::new(), false).await.unwrap();
    let counted = D::int(&counted[0], 0).unwrap().unwrap();
    assert!(counted >= 3, "only {counted} tries");
}

/// Serialization failures and deadlocks as PostgreSQL tells them, in statements and in commits.
#[tokio::test]
async fn serialization_failures_on_postgres_are_tried_again() {
    let outbox = opened(postgres(&OutboxSettings::default())).await;
    let name = outbox.name().to_owned();
    let run =
        async |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(outbox.pool()).await.unwrap();
    for code in ["40001", "40P01"] {
        for trigger in [
            format!("TRIGGER {name}_fails BEFORE UPDATE ON {name}_lane FOR EACH ROW"),
            format!("TRIGGER {name}_fails BEFORE INSERT ON {name}_message FOR EACH ROW"),
            format!(
                "CONSTRAINT TRIGGER {name}_fails AFTER UPDATE ON {name}_lane DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            ),
            format!(
                "CONSTRAINT TRIGGER {name}_fails AFTER INSERT ON {name}_message DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            ),
        ] {
            // A sequence knows of no transaction: two out of three tries fail.
            run(format!(
                "CREATE SEQUENCE {name}_tries; CREATE FUNCTION {name}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF nextval('{name}_tries') % 3 <> 0 THEN RAISE EXCEPTION 'collided' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$; \
                 CREATE {trigger} EXECUTE FUNCTION {name}_fail()"
            ))
            .await;
            goes_through(&outbox, &format!("SELECT last_value FROM {name}_tries")).await;
            run(format!("DROP FUNCTION {name}_fail CASCADE; DROP SEQUENCE {name}_tries")).await;
        }
    }
}

/// Deadlocks, lock timeouts and changed records as MariaDB tells them.
#[tokio::test]
async fn collisions_on_mariadb_are_tried_again() {
    let outbox = opened(mariadb(&OutboxSettings::default())).await;
    let name = outbox.name().to_owned();
    let run =
        async |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(outbox.pool()).await.unwrap();
    for (number, state) in [(1213, "40001"), (1205, "HY000"), (1020, "HY000")] {
        for event in [format!("UPDATE ON {name}_lane"), format!("INSERT ON {name}_message")] {
            run(format!("CREATE SEQUENCE {name}_tries")).await;
            run(format!(
                "CREATE TRIGGER {name}_fails BEFORE {event} FOR EACH ROW BEGIN IF NEXTVAL({name}_tries) % 3 <> 0 THEN \
                 SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'collided'; END IF; END"
            ))
            .await;
            goes_through(&outbox, &format!("SELECT CAST(NEXTVAL({name}_tries) AS SIGNED)")).await;
            run(format!("DROP TRIGGER {name}_fails; DROP SEQUENCE {name}_tries")).await;
        }
    }
}

/// A writer of another process holds the file for longer than SQLite itself waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_sqlite_is_tried_again() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    // SQLite waits for a quarter of it.
    let limit = Duration::from_secs(6);
    let outbox = opened(config.response_timeout(limit)).await;
    let mut other = outbox.pool().acquire().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *other).await.unwrap();
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.enqueue_alone(&[message(None)]).await }
    });
    tokio::time::sleep(limit / 4 + Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "nobody else may write");
    sqlx::raw_sql("COMMIT").execute(&mut *other).await.unwrap();
    waiting.await.unwrap().unwrap();
}

/// One that never lets go is an outage, and is told as such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_that_stays_busy_is_an_outage() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    let outbox = opened(config.response_timeout(Duration::from_millis(800))).await;
    let mut other = outbox.pool().acquire().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *other).await.unwrap();
    let error = outbox.enqueue_alone(&[message(None)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.to_string().contains("another process holds it"), "{error}");
    sqlx::raw_sql("COMMIT").execute(&mut *other).await.unwrap();
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
}

/// What a commit answers does not always say that nothing was committed.
#[tokio::test]
async fn a_commit_that_was_cut_off_is_unknown() {
    let outbox = opened(postgres(&OutboxSettings::default())).await;
    let name = outbox.name().to_owned();
    for (code, effect) in [("23514", Effect::NotApplied), ("57P01", Effect::Unknown)] {
        let sql = format!(
            "CREATE FUNCTION {name}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$; \
             CREATE CONSTRAINT TRIGGER {name}_fails AFTER INSERT ON {name}_message DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {name}_fail()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(outbox.pool()).await.unwrap();
        let error = outbox.enqueue_alone(&[message(None)]).await.unwrap_err();
        assert_eq!(error.effect(), effect, "{code}: {}", error.report());
        let sql = format!("DROP FUNCTION {name}_fail CASCADE");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(outbox.pool()).await.unwrap();
    }
}
