//! What several tests need: a server for all of them, and outboxes of their own on it.

use mongodb::Client;
use pillarbox_core::{
    Claim, Claimed, Message, Nonce, Settled, Settlements, Storage as _, TestClock, Verdict,
};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::servers::MongoServer;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// The database of the tests.
pub(crate) const SHOP: &str = "shop";

/// A transaction whose future was dropped is in the way of others for a minute, if nothing else is said.
const GIVES_UP: [&str; 2] = ["--setParameter", "transactionLifetimeLimitSeconds=10"];

/// The server that the tests of this process share. A guardian kills it when the process ends.
pub(crate) fn server() -> &'static MongoServer {
    static SERVER: OnceLock<MongoServer> = OnceLock::new();
    SERVER.get_or_init(|| MongoServer::start_with(&GIVES_UP).unwrap())
}

/// A name that no other test of this process has.
pub(crate) fn fresh_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("outbox-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A fresh outbox on the shared server, with few lanes so that keys meet.
pub(crate) fn config(clock: &TestClock) -> MongoConfig {
    MongoConfig::from_url(&server().url(SHOP)).unwrap().name(fresh_name()).lanes(4).test_clock(clock.clone())
}

/// A client of the test's own.
pub(crate) async fn client(server: &MongoServer) -> Client {
    Client::with_uri_str(server.url(SHOP)).await.unwrap()
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
pub(crate) async fn settle_all(outbox: &MongoStorage, claimed: &Claimed, verdict: &Verdict) -> Vec<Settled> {
    let mut call = Settlements::new();
    for run in &claimed.runs {
        call.verdicts(run.token, vec![verdict.clone(); run.len as usize]);
    }
    outbox.settle(&call).await.unwrap()
}
