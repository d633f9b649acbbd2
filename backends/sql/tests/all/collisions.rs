//! Transactions of the outbox that collide with others.

use crate::support::{ask, message, postgres, postgres_server};
use pillarbox_core::{Outcome, Settlements, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::OutboxSettings;
use std::time::Duration;

/// An outbox with a claim of two lanes, the settlement of both, and the lanes from the lowest up.
async fn two_lanes<D: Dialect>(config: SqlConfig<D>) -> (SqlStorage<D>, Settlements, [u64; 2])
where
    SqlStorage<D>: Storage,
{
    SqlStorage::migrate(&config).await.unwrap();
    let outbox = SqlStorage::connect(config).await.unwrap();
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
/// the victim. `waits` answers whether it waits for its lock.
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
        assert!(begun.elapsed() < Duration::from_secs(60), "the settlement does not wait for the lane");
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
    let after = log.split("deadlock detected").nth(1).expect("a deadlock in the server's log");
    assert!(after.contains(&table) || log.contains(&table), "{after}");
}
