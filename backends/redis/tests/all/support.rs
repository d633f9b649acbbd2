//! What several tests need: a server for all of them, and outboxes of their own on it.

use pillarbox_core::{Claim, Claimed, Message, Nonce, Settlements, Storage as _, TestClock, Verdict};
use pillarbox_redis::{RedisConfig, RedisStorage};
use pillarbox_testkit::servers::RedisServer;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The server that the tests of this process share. A guardian kills it when the process ends.
pub(crate) fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| RedisServer::start().unwrap())
}

/// A name that no other test of this process has.
pub(crate) fn fresh_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("outbox-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A fresh outbox on the shared server, with few lanes so that keys meet.
pub(crate) fn config(clock: &TestClock) -> RedisConfig {
    RedisConfig::from_url(&server().url()).unwrap().name(fresh_name()).lanes(4).test_clock(clock.clone())
}

/// A connection of the test's own.
pub(crate) async fn connection(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub(crate) fn message(key: Option<&str>) -> Message {
    let message = Message::to("orders.created");
    match key {
        Some(key) => message.key(key.to_owned()).payload("{}").unwrap(),
        None => message.payload("{}").unwrap(),
    }
}

pub(crate) fn ask(limit: u32) -> Claim {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let nonce = Nonce::from_words(7, NUMBER.fetch_add(1, Ordering::Relaxed));
    Claim { limit, lease: LEASE, nonce, solo: false }
}

/// Settles everything that a claim answered with one verdict.
pub(crate) async fn settle_all(outbox: &RedisStorage, claimed: &Claimed, verdict: &Verdict) {
    let mut call = Settlements::new();
    for run in &claimed.runs {
        call.verdicts(run.token, vec![verdict.clone(); run.len as usize]);
    }
    outbox.settle(&call).await.unwrap();
}
