//! Connections that nobody ends: clients and servers whose other side is gone without a word.

use crate::support::{ask, fresh_name, ids, mariadb_server, message, opened, postgres_server, settle_all};
use pillarbox_core::{Claim, Storage, TestClock, Verdict};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::Proxy;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A machine vanishes with its relay in the middle of a transaction. The database ends that transaction, and others get its lanes.
async fn a_vanished_relay_keeps_no_lane<D: Dialect>(url: &str, server: SocketAddr)
where
    SqlStorage<D>: Storage,
{
    let (clock, name) = (TestClock::new(), fresh_name());
    let direct = SqlConfig::<D>::from_url(url).unwrap().name(&name).test_clock(clock.clone());
    let outbox = opened(direct).await;
    let sent: Vec<_> = (0..100).map(|number| message(Some(&format!("key-{number}")))).collect();
    outbox.enqueue_alone(&sent).await.unwrap();
    let locked = format!("SELECT lane FROM {name}_lane FOR UPDATE SKIP LOCKED");
    let free_lanes = async || {
        let mut watching = outbox.pool().begin().await.unwrap();
        D::query(&mut watching, locked.clone(), Vec::new(), false).await.unwrap().len()
    };

    let mut vanished = None;
    for round in 1..=200 {
        let proxy = Proxy::start(server).unwrap();
        let far = SqlConfig::<D>::from_url(&proxy.through(url)).unwrap().name(&name);
        let far = far.response_timeout(Duration::from_secs(1)).connect_timeout(Duration::from_secs(1));
        let relay = SqlStorage::connect(far.test_clock(clock.clone())).await.unwrap();
        let relaying = tokio::spawn(async move {
            loop {
                // It ends by errors, which is no news here.
                let Ok(claimed) = relay.claim(ask(100)).await else { continue };
                let mut call = pillarbox_core::Settlements::new();
                claimed.runs.iter().for_each(|run| call.hand_back(run.token, Duration::ZERO));
                let _ = relay.settle(&call).await;
            }
        });
        tokio::time::sleep(Duration::from_micros(10_000 + 1_700 * round)).await;
        proxy.stall();
        relaying.abort();
        // What the server was doing has ended; what it holds now it holds for a client that it waits for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if free_lanes().await < 16 {
            vanished = Some(proxy);
            break;
        }
    }
    let _proxy = vanished.expect("a transaction that was cut off while it held lanes");
    let (begun, mut delivered) = (Instant::now(), HashSet::new());
    while delivered.len() < sent.len() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {} came", delivered.len(), sent.len());
        clock.advance(Duration::from_secs(60));
        let mut claimed = outbox.claim(ask(100)).await.unwrap();
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claimed = outbox.claim(Claim { solo: true, ..ask(1) }).await.unwrap();
        }
        delivered.extend(ids(&claimed));
        settle_all(&outbox, &claimed, &Verdict::Published).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_relay_keeps_no_lane_on_postgres() {
    let server = postgres_server();
    a_vanished_relay_keeps_no_lane::<sqlx::Postgres>(&server.url(), server.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_relay_keeps_no_lane_on_mariadb() {
    let server = mariadb_server();
    a_vanished_relay_keeps_no_lane::<sqlx::MySql>(&server.url(), server.address()).await;
}

/// The network forgets all connections of a handle, and never tells. The handle goes on with new ones.
async fn half_open_connections_are_replaced<D: Dialect>(url: &str, server: SocketAddr)
where
    SqlStorage<D>: Storage,
{
    let proxy = Proxy::start(server).unwrap();
    let config = SqlConfig::<D>::from_url(&proxy.through(url)).unwrap().name(fresh_name()).max_connections(2);
    let config = config.response_timeout(Duration::from_secs(2)).connect_timeout(Duration::from_secs(2));
    let outbox = opened(config).await;
    for _ in 0..3 {
        outbox.enqueue_alone(&[message(None)]).await.unwrap();
        // As many connections as it may have, idle and in the middle of a call.
        let none = Claim { limit: 0, ..ask(0) };
        let both = tokio::join!(outbox.claim(none), outbox.claim(none));
        assert!(both.0.is_ok() && both.1.is_ok());
        let calling = tokio::spawn({
            let outbox = outbox.clone();
            async move { while outbox.claim(Claim { limit: 0, ..ask(0) }).await.is_ok() {} }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        proxy.half_open();
        // What was under way is cut off, whatever it was.
        calling.abort();
        let begun = Instant::now();
        let claimed = loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "it has no connection that works");
            if let Ok(claimed) = outbox.claim(ask(10)).await {
                break claimed;
            }
        };
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_to_postgres_are_replaced() {
    let server = postgres_server();
    half_open_connections_are_replaced::<sqlx::Postgres>(&server.url(), server.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_to_mariadb_are_replaced() {
    let server = mariadb_server();
    half_open_connections_are_replaced::<sqlx::MySql>(&server.url(), server.address()).await;
}
