//! Claims and settlements that are interrupted between two of their writes, at points that the server is told to fail at.

use crate::support::{LEASE, SHOP, ask, fresh_name, message, settle_all};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Collection};
use pillarbox_core::{
    Claimed, Content, Effect, Entry, ErrorKind, Hints, MessageId, Outcome, Settled, Settlements,
    Storage as _, TestClock, Text, Verdict,
};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::servers::{MongoReplicaSet, MongoServer};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

/// A transaction that nobody ends is in the way of others for a minute, if nothing else is said.
const FAULTS: [&str; 4] =
    ["--setParameter", "enableTestCommands=1", "--setParameter", "transactionLifetimeLimitSeconds=2"];
/// Not a timed assertion: a test that hangs has to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that fails on demand. It has one such demand at a time, so one test has it at a time.
struct Faulty {
    server: &'static MongoServer,
    _turn: MutexGuard<'static, ()>,
}

impl Faulty {
    async fn server() -> Self {
        static SERVER: OnceLock<MongoServer> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let server = spawn_blocking(|| SERVER.get_or_init(|| MongoServer::start_with(&FAULTS).unwrap()))
            .await
            .unwrap();
        Self { server, _turn: turn }
    }

    /// An outbox of one lane, two handles on it, and a clock that both go by.
    async fn outbox(&self) -> Outbox {
        let clock = TestClock::new();
        let config = MongoConfig::from_url(&self.server.url(SHOP))
            .unwrap()
            .name(fresh_name())
            .lanes(1)
            .response_timeout(PATIENCE)
            .test_clock(clock.clone());
        let first = MongoStorage::connect(config.clone()).await.unwrap();
        let second = MongoStorage::connect(config).await.unwrap();
        let client = Client::with_uri_str(self.server.url(SHOP)).await.unwrap();
        let lanes = client.database(SHOP).collection(&format!("{}.lanes", first.name()));
        let messages = client.database(SHOP).collection(&format!("{}.messages", first.name()));
        Outbox { first, second, clock, lanes, messages }
    }

    /// From now on the next `times` of these commands fail.
    fn fail(&self, command: &str, times: i32, how: Document) {
        let mut data = doc! { "failCommands": [command] };
        data.extend(how);
        let demand = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        self.server.command(&demand).unwrap();
    }

    fn heal(&self) {
        self.server.command(&doc! { "configureFailPoint": "failCommand", "mode": "off" }).unwrap();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = self.server.command(&doc! { "configureFailPoint": "failCommand", "mode": "off" });
    }
}

struct Outbox {
    first: MongoStorage,
    second: MongoStorage,
    clock: TestClock,
    lanes: Collection<Document>,
    messages: Collection<Document>,
}

impl Outbox {
    /// A run of these keys, claimed by the first handle.
    async fn claimed(&self, keys: &[&str]) -> Claimed {
        let messages: Vec<_> = keys.iter().map(|key| message(Some(key))).collect();
        self.first.enqueue_alone(&messages).await.unwrap();
        let claimed = self.first.claim(ask(10)).await.unwrap();
        assert_eq!((claimed.runs.len(), claimed.entries.len()), (1, keys.len()));
        claimed
    }

    async fn lane(&self) -> Document {
        self.lanes.find_one(doc! { "_id": 0 }).await.unwrap().unwrap()
    }

    /// Read as documents, since the server counts by `aggregate`, which a test lets fail.
    async fn left(&self) -> usize {
        self.messages.find(doc! {}).await.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// The outbox is empty and its lane free: what is enqueued now is claimed as a whole by somebody else.
    async fn is_as_new(&self) {
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

fn lost_answer() -> Document {
    doc! { "writeConcernError": { "code": 91, "errmsg": "the answer was lost" } }
}

fn retried(claimed: &Claimed) -> Settlements {
    let mut call = Settlements::new();
    let verdict = Verdict::Retry { after: Duration::from_secs(1), error: Text::from("no") };
    call.verdicts(claimed.runs[0].token, [verdict]);
    call
}

fn published(claimed: &Claimed) -> Settlements {
    let mut call = Settlements::new();
    let run = claimed.runs[0];
    call.verdicts(run.token, vec![Verdict::Published; run.len as usize]);
    call
}

#[tokio::test]
async fn a_settlement_cut_off_between_its_writes_is_finished_by_its_repetition() {
    let faulty = Faulty::server().await;
    for (command, left) in [("delete", 3), ("update", 0)] {
        let outbox = faulty.outbox().await;
        let claimed = outbox.claimed(&["a", "a", "b"]).await;
        // Twice, since the client repeats some by itself.
        faulty.fail(command, 2, doc! { "closeConnection": true });
        let error = outbox.first.settle(&published(&claimed)).await.unwrap_err();
        faulty.heal();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{command}");
        assert_eq!(outbox.left().await, left, "{command}");
        assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty(), "{command}");
        for _ in 0..2 {
            let settled = settle_all(&outbox.first, &claimed, &Verdict::Published).await;
            assert_eq!(settled[0].outcome, Outcome::AlreadyApplied, "{command}");
        }
        outbox.is_as_new().await;
    }
}

#[tokio::test]
async fn a_settlement_whose_settler_dies_between_its_writes_is_finished_by_the_next_claim() {
    let faulty = Faulty::server().await;
    for command in ["delete", "update"] {
        let outbox = faulty.outbox().await;
        let claimed = outbox.claimed(&["a", "a", "b"]).await;
        faulty.fail(command, 2, doc! { "closeConnection": true });
        outbox.first.settle(&published(&claimed)).await.unwrap_err();
        faulty.heal();
        outbox.clock.advance(LEASE * 2);
        let claimed = outbox.second.claim(ask(10)).await.unwrap();
        assert!(claimed.runs.is_empty(), "{command}: what is settled is not handed out again");
        outbox.is_as_new().await;
    }
}

/// What a failover does to a write that only the old primary had: the lane is as it was before the settlement's first write.
async fn first_write_lost(faulty: &Faulty, outbox: &Outbox, meanwhile: impl AsyncFnOnce()) -> Settled {
    let claimed = outbox.claimed(&["a", "a", "b", "b"]).await;
    let before = outbox.lane().await;
    faulty.fail("delete", 1, doc! { "blockConnection": true, "blockTimeMS": 5_000 });
    let (first, call) = (outbox.first.clone(), published(&claimed));
    let settling = tokio::spawn(async move { first.settle(&call).await });
    let begun = Instant::now();
    while !outbox.lane().await.get_bool("done").unwrap() {
        assert!(begun.elapsed() < PATIENCE, "the first write is missing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outbox.lanes.replace_one(doc! { "_id": 0 }, before).await.unwrap();
    meanwhile().await;
    assert_eq!(outbox.left().await, 4, "the deletion was not held up for long enough");
    settling.await.unwrap().unwrap()[0]
}

#[tokio::test]
async fn a_settlement_whose_first_write_is_lost_in_a_failover_still_frees_its_lane() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let settled = first_write_lost(&faulty, &outbox, async || {}).await;
    assert_eq!(settled.outcome, Outcome::Applied);
    outbox.is_as_new().await;
}

#[tokio::test]
async fn a_settlement_whose_first_write_is_lost_is_fenced_by_a_claim_in_between() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let mut taken = None;
    let settled = first_write_lost(&faulty, &outbox, async || {
        outbox.clock.advance(LEASE * 2);
        taken = Some(outbox.second.claim(ask(10)).await.unwrap());
    })
    .await;
    assert_eq!(settled.outcome, Outcome::Fenced);
    // The other one holds a message that was published before; whatever it says, nothing comes back.
    let taken = taken.unwrap();
    let run = taken.runs[0];
    let mut call = Settlements::new();
    let release = Verdict::Release { after: Duration::ZERO };
    call.verdicts(run.token, vec![release; run.len as usize]);
    assert_eq!(outbox.second.settle(&call).await.unwrap()[0].outcome, Outcome::Applied);
    assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty());
    outbox.is_as_new().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_charges_once() {
    let faulty = Faulty::server().await;
    for (times, how) in [
        // The client and we repeat the commit.
        (3, doc! { "closeConnection": true }),
        // Never committed, as far as anybody knows, and then committed at the repetition of the whole.
        (50, doc! { "closeConnection": true }),
        // Committed at once, and never told.
        (50, lost_answer()),
    ] {
        let outbox = faulty.outbox().await;
        let claimed = outbox.claimed(&["a"]).await;
        faulty.fail("commitTransaction", times, how);
        let mut settled = outbox.first.settle(&retried(&claimed)).await;
        faulty.heal();
        if let Err(error) = &settled {
            assert_eq!((times, error.effect()), (50, Effect::Unknown), "{error:?}");
            let begun = Instant::now();
            while let Err(error) = &settled {
                assert!(begun.elapsed() < PATIENCE && error.kind() == ErrorKind::Unavailable, "{error:?}");
                settled = outbox.first.settle(&retried(&claimed)).await;
            }
        }
        assert!(matches!(settled.unwrap()[0].outcome, Outcome::Applied | Outcome::AlreadyApplied));
        let again = outbox.first.settle(&retried(&claimed)).await.unwrap();
        assert_eq!(again[0].outcome, Outcome::AlreadyApplied);
        outbox.clock.advance(Duration::from_secs(2));
        let claimed = outbox.second.claim(ask(10)).await.unwrap();
        assert_eq!((claimed.entries.len(), claimed.entries[0].attempts), (1, 1));
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_answers_the_same_again() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    outbox.first.enqueue_alone(&[message(Some("a")), message(Some("b"))]).await.unwrap();
    let claim = ask(10);
    faulty.fail("findAndModify", 2, lost_answer());
    let error = outbox.first.claim(claim).await.unwrap_err();
    faulty.heal();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty());
    let claimed = outbox.first.claim(claim).await.unwrap();
    assert_eq!((claimed.runs[0].token.fence, claimed.entries.len()), (1, 2));
    settle_all(&outbox.first, &claimed, &Verdict::Published).await;
    outbox.is_as_new().await;
}

#[tokio::test]
async fn a_strike_that_is_aborted_after_the_fence_rose_is_charged_once() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let abandoned = outbox.claimed(&["a", "a", "a", "a"]).await;
    outbox.clock.advance(LEASE * 2);
    let aborted = doc! { "errorCode": 251, "errorLabels": ["TransientTransactionError"] };
    faulty.fail("commitTransaction", 1, aborted);
    let claimed = outbox.second.claim(ask(10)).await.unwrap();
    assert_eq!(claimed.entries.len(), 2, "half of four");
    // Once at the strike, once at the claim.
    assert_eq!(claimed.runs[0].token.fence, abandoned.runs[0].token.fence + 2);
    let late = settle_all(&outbox.first, &abandoned, &Verdict::Published).await;
    assert_eq!((late[0].outcome, outbox.left().await), (Outcome::Fenced, 4));
}

#[tokio::test]
async fn a_clock_that_steps_back_shortens_no_lease_and_reorders_nothing() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    outbox.clock.advance(Duration::from_secs(3_600));
    let claimed = outbox.claimed(&["a", "a"]).await;
    outbox.first.enqueue_alone(&[message(Some("a"))]).await.unwrap();
    outbox.clock.shift(-3_600_000_000);
    let renewed = outbox.first.renew(&[claimed.runs[0].token], LEASE).await.unwrap();
    assert!(renewed[0].lease_until >= Some(claimed.runs[0].lease_until), "{renewed:?}");
    assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty());
    let mut call = Settlements::new();
    let release = Verdict::Release { after: Duration::ZERO };
    call.verdicts(claimed.runs[0].token, [Verdict::Published, release]);
    assert_eq!(outbox.first.settle(&call).await.unwrap()[0].outcome, Outcome::Applied);
    let next = outbox.second.claim(ask(10)).await.unwrap();
    let ids: Vec<_> = next.entries.iter().map(id).collect();
    assert_eq!((ids.len(), ids[0]), (2, id(&claimed.entries[1])));
}

/// The number of a message that the primary has and the majority lacks cannot be answered as nothing: it would wait for its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_majority_does_not_confirm_is_never_answered_as_nothing() {
    let set = spawn_blocking(|| MongoReplicaSet::start_with(&FAULTS).unwrap()).await.unwrap();
    let config = MongoConfig::from_url(&set.url(SHOP))
        .unwrap()
        .name(fresh_name())
        .lanes(1)
        .response_timeout(Duration::from_secs(3));
    let outbox = MongoStorage::connect(config).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    let primary = set.primary().unwrap();
    let lagging = |mode: &str| {
        for node in (0..MongoReplicaSet::NODES).filter(|node| *node != primary) {
            set.command(node, &doc! { "configureFailPoint": "stopReplProducer", "mode": mode }).unwrap();
        }
    };
    lagging("alwaysOn");
    let claim = ask(10);
    for _ in 0..2 {
        let error = outbox.claim(claim).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    }
    lagging("off");
    let begun = Instant::now();
    let claimed = loop {
        match outbox.claim(claim).await {
            Ok(claimed) => break claimed,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
        }
    };
    assert_eq!((claimed.runs[0].token.fence, claimed.entries.len()), (1, 2));
}

/// A server may have no change streams for this user, or lose them: the relay's poll interval is the floor, and hints come back.
#[tokio::test]
async fn without_change_streams_claims_go_on_and_hints_come_later() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let namespace = format!("{SHOP}.{}.messages", outbox.first.name());
    let refused = doc! { "namespace": namespace, "errorCode": 40_573 };
    faulty.fail("aggregate", i32::MAX, refused);
    let mut hints = outbox.first.wakeup().unwrap().subscribe();
    assert!(!poll_once(&mut *hints), "there is no stream yet");
    let begun = Instant::now();
    while times_entered(&faulty) == 0 {
        assert!(begun.elapsed() < PATIENCE, "nobody asked for a stream");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outbox.is_as_new().await;
    assert!(!poll_once(&mut *hints), "a refused stream hints at nothing");
    faulty.heal();
    // The listener tries again, and what was enqueued before it hears is hinted at.
    tokio::time::timeout(PATIENCE, hints.hinted()).await.unwrap();
}

fn id(entry: &Entry) -> Option<MessageId> {
    match &entry.content {
        Content::Message(message) => Some(message.id()),
        Content::Undecodable(_) => None,
    }
}

fn poll_once(hints: &mut dyn Hints) -> bool {
    let mut hinted = hints.hinted();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    hinted.as_mut().poll(&mut context).is_ready()
}

/// How often a demand was met. Asking for it with an unchanged mode would reset it, so the parameter is read.
fn times_entered(faulty: &Faulty) -> i64 {
    let parameter = faulty.server.command(&doc! { "getParameter": 1, "failpoint.failCommand": 1 }).unwrap();
    let state = parameter.get_document("failpoint.failCommand").unwrap();
    match state.get("timesEntered") {
        Some(Bson::Int32(times)) => i64::from(*times),
        Some(Bson::Int64(times)) => *times,
        _ => 0,
    }
}
