//! Servers that are killed while an outbox works.

use crate::support::{ask, message};
use pillarbox_core::{Claim, EnqueueAlone, ErrorKind, Storage, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer};
use sqlx::{MySql, Postgres};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Enqueues and drains while the server is killed again and again: nothing that was acknowledged is lost, nothing is delivered that was
/// not enqueued.
async fn server_killed_under_load<D: Dialect>(url: &str, restart: impl Fn() + Send + 'static)
where
    SqlStorage<D>: EnqueueAlone + Storage,
{
    let config = SqlConfig::<D>::from_url(url)
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .response_timeout(Duration::from_secs(4));
    SqlStorage::migrate(&config).await.unwrap();
    let outbox = SqlStorage::connect(config).await.unwrap();
    let producer = {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            let (mut acknowledged, mut attempted) = (HashSet::new(), HashSet::new());
            for number in 0..120 {
                let batch: Vec<_> = (0..10).map(|key| message((key % 2 == 0).then_some("key"))).collect();
                attempted.extend(batch.iter().map(pillarbox_core::Message::id));
                if outbox.enqueue_alone(&batch).await.is_ok() {
                    acknowledged.extend(batch.iter().map(pillarbox_core::Message::id));
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if number % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            (acknowledged, attempted)
        })
    };
    let killer = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(150));
            restart();
        }
    });
    let mut delivered: HashMap<_, u32> = HashMap::new();
    let mut failures = 0;
    let lease = Duration::from_millis(500);
    while !(producer.is_finished() && killer.is_finished()) {
        drain_once(&outbox, lease, &mut delivered, &mut failures).await;
    }
    killer.await.unwrap();
    let (acknowledged, attempted) = producer.await.unwrap();
    // What a lost answer still holds comes back after its lease.
    let mut idle = 0;
    while idle < 40 {
        let before = delivered.len();
        drain_once(&outbox, lease, &mut delivered, &mut failures).await;
        idle = if delivered.len() == before { idle + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(failures > 0, "the kills were felt");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !delivered.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} acknowledged messages were lost", lost.len());
    assert!(delivered.keys().all(|id| attempted.contains(id)), "only what was enqueued");
}

/// Claims, and settles until that is answered.
async fn drain_once<S: Storage>(
    outbox: &S,
    lease: Duration,
    delivered: &mut HashMap<pillarbox_core::MessageId, u32>,
    failures: &mut u32,
) {
    let claim = Claim { lease, ..ask(50) };
    let claimed = match outbox.claim(claim).await {
        Ok(claimed) if claimed.runs.is_empty() && claimed.suspects > 0 => {
            match outbox.claim(Claim { lease, solo: true, ..ask(1) }).await {
                Ok(claimed) => claimed,
                Err(_) => return,
            }
        }
        Ok(claimed) => claimed,
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Unavailable),
                "an outage is told as one: {}",
                error.report()
            );
            *failures += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        }
    };
    for entry in &claimed.entries {
        if let pillarbox_core::Content::Message(message) = &entry.content {
            *delivered.entry(message.id()).or_default() += 1;
        }
    }
    let mut call = pillarbox_core::Settlements::new();
    for run in &claimed.runs {
        call.verdicts(run.token, vec![Verdict::Published; run.len as usize]);
    }
    for _ in 0..200 {
        match outbox.settle(&call).await {
            Ok(_) => return,
            Err(_) => {
                *failures += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    panic!("a settlement was not answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_under_load_loses_nothing() {
    let server = std::sync::Arc::new(PostgresServer::start().unwrap());
    let (url, restarted) = (server.url(), std::sync::Arc::clone(&server));
    server_killed_under_load::<Postgres>(&url, move || restarted.restart().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_killed_under_load_loses_nothing() {
    let server = std::sync::Arc::new(MariaDbServer::start().unwrap());
    let (url, restarted) = (server.url(), std::sync::Arc::clone(&server));
    server_killed_under_load::<MySql>(&url, move || restarted.restart().unwrap()).await;
}
