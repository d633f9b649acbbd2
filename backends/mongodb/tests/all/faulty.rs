//! A server that fails where it is told to, and outboxes on it.

use crate::support::{SHOP, ask, fresh_name, message, settle_all};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Collection};
use pillarbox_core::{Claimed, ErrorKind, Outcome, Storage as _, TestClock, Verdict};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::servers::MongoServer;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

/// A transaction that nobody ends is in the way of others for a minute, if nothing else is said.
pub(crate) const FAULTS: [&str; 4] =
    ["--setParameter", "enableTestCommands=1", "--setParameter", "transactionLifetimeLimitSeconds=2"];
/// Not a timed assertion: a test that hangs has to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server that fails on demand. It has one such demand at a time, so one test has it at a time.
pub(crate) struct Faulty {
    pub(crate) server: &'static MongoServer,
    _turn: MutexGuard<'static, ()>,
}

impl Faulty {
    pub(crate) async fn server() -> Self {
        static SERVER: OnceLock<MongoServer> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let server = spawn_blocking(|| SERVER.get_or_init(|| MongoServer::start_with(&FAULTS).unwrap()))
            .await
            .unwrap();
        Self { server, _turn: turn }
    }

    /// An outbox of one lane, two handles on it, and a clock that both go by.
    pub(crate) async fn outbox(&self) -> Outbox {
        self.patient_outbox(PATIENCE).await
    }

    /// One that gives up a call after so long.
    pub(crate) async fn patient_outbox(&self, patience: Duration) -> Outbox {
        let clock = TestClock::new();
        let config = MongoConfig::from_url(&self.server.url(SHOP))
            .unwrap()
            .name(fresh_name())
            .lanes(1)
            .response_timeout(patience)
            .test_clock(clock.clone());
        let first = MongoStorage::connect(config.clone()).await.unwrap();
        let second = MongoStorage::connect(config).await.unwrap();
        let client = Client::with_uri_str(self.server.url(SHOP)).await.unwrap();
        let lanes = client.database(SHOP).collection(&format!("{}.lanes", first.name()));
        let messages = client.database(SHOP).collection(&format!("{}.messages", first.name()));
        Outbox { first, second, clock, lanes, messages }
    }

    /// From now on the next `times` of these commands fail.
    pub(crate) fn fail(&self, command: &str, times: i32, how: Document) {
        self.demand(doc! { "times": times }, command, how);
    }

    /// So many of these commands succeed, and all that follow fail.
    pub(crate) fn fail_after(&self, skipped: i32, command: &str, how: Document) {
        self.demand(doc! { "skip": skipped }, command, how);
    }

    fn demand(&self, mode: Document, command: &str, how: Document) {
        let mut data = doc! { "failCommands": [command] };
        data.extend(how);
        let demand = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        self.server.command(&demand).unwrap();
    }

    /// How often the demand was met.
    pub(crate) fn times_entered(&self) -> i64 {
        times_entered(|command| self.server.command(command).unwrap())
    }

    pub(crate) fn heal(&self) {
        self.server.command(&doc! { "configureFailPoint": "failCommand", "mode": "off" }).unwrap();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = self.server.command(&doc! { "configureFailPoint": "failCommand", "mode": "off" });
    }
}

pub(crate) struct Outbox {
    pub(crate) first: MongoStorage,
    pub(crate) second: MongoStorage,
    pub(crate) clock: TestClock,
    pub(crate) lanes: Collection<Document>,
    pub(crate) messages: Collection<Document>,
}

impl Outbox {
    /// A run of these keys, claimed by the first handle.
    pub(crate) async fn claimed(&self, keys: &[&str]) -> Claimed {
        let messages: Vec<_> = keys.iter().map(|key| message(Some(key))).collect();
        self.first.enqueue_alone(&messages).await.unwrap();
        let claimed = self.first.claim(ask(10)).await.unwrap();
        assert_eq!((claimed.runs.len(), claimed.entries.len()), (1, keys.len()));
        claimed
    }

    pub(crate) async fn lane(&self) -> Document {
        self.lanes.find_one(doc! { "_id": 0 }).await.unwrap().unwrap()
    }

    /// Whether its run is settled, and its messages are to be deleted.
    pub(crate) async fn is_being_cleared(&self) -> bool {
        self.lane().await.get_bool("clearing").unwrap_or_default()
    }

    /// Read as documents, since the server counts by `aggregate`, which a test lets fail.
    pub(crate) async fn left(&self) -> usize {
        self.messages.find(doc! {}).await.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// The outbox is empty and its lane free: what is enqueued now is claimed as a whole by somebody else.
    pub(crate) async fn is_as_new(&self) {
        assert_eq!(self.left().await, 0);
        self.first.enqueue_alone(&[message(Some("a")), message(Some("b")), message(None)]).await.unwrap();
        let claimed = self.second.claim(ask(10)).await.unwrap();
        assert_eq!((claimed.runs.len(), claimed.entries.len()), (1, 3), "{:?}", self.lane().await);
        assert!(claimed.entries.iter().all(|entry| entry.attempts == 0 && entry.strikes == 0));
        let settled = settle_all(&self.second, &claimed, &Verdict::Published).await;
        assert_eq!(settled[0].outcome, Outcome::Applied);
        assert_eq!(self.left().await, 0);
    }
}

/// Asks again while the transaction that nobody ended is in the way.
pub(crate) async fn repeated<T>(mut ask: impl AsyncFnMut() -> Result<T, pillarbox_core::Error>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(begun.elapsed() < PATIENCE && error.kind() == ErrorKind::Unavailable, "{error:?}");
            }
        }
    }
}

/// How often a demand was met. Asking for it with an unchanged mode would reset it, so the parameter is read.
pub(crate) fn times_entered(command: impl Fn(&Document) -> Document) -> i64 {
    let parameter = command(&doc! { "getParameter": 1, "failpoint.failCommand": 1 });
    let state = parameter.get_document("failpoint.failCommand").unwrap();
    match state.get("timesEntered") {
        Some(Bson::Int32(times)) => i64::from(*times),
        Some(Bson::Int64(times)) => *times,
        _ => 0,
    }
}
