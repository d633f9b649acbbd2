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
        self.patient_outbox(PATIENCE).await
    }

    /// One that gives up a call after so long.
    async fn patient_outbox(&self, patience: Duration) -> Outbox {
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

/// Its writes, in turn.
const SETTLEMENT: [&str; 3] = ["update", "delete", "commitTransaction"];

#[tokio::test]
async fn a_settlement_cut_off_between_its_writes_is_run_again() {
    let faulty = Faulty::server().await;
    for command in SETTLEMENT {
        for how in [doc! { "closeConnection": true }, stepping_down()] {
            let outbox = faulty.outbox().await;
            let claimed = outbox.claimed(&["a", "a", "b"]).await;
            faulty.fail(command, 1, how.clone());
            let settled = outbox.first.settle(&published(&claimed)).await;
            faulty.heal();
            assert_eq!(settled.unwrap()[0].outcome, Outcome::Applied, "{command} {how}");
            assert_eq!(outbox.left().await, 0, "{command} {how}");
            let settled = settle_all(&outbox.first, &claimed, &Verdict::Published).await;
            assert_eq!(settled[0].outcome, Outcome::AlreadyApplied, "{command} {how}");
            outbox.is_as_new().await;
        }
    }
}

#[tokio::test]
async fn a_settlement_that_never_gets_through_has_changed_nothing_and_is_repeated() {
    let faulty = Faulty::server().await;
    for command in SETTLEMENT {
        let outbox = faulty.outbox().await;
        let claimed = outbox.claimed(&["a", "a", "b"]).await;
        faulty.fail(command, 1_000, doc! { "closeConnection": true });
        let error = outbox.first.settle(&published(&claimed)).await.unwrap_err();
        faulty.heal();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{command}");
        assert_eq!(outbox.left().await, 3, "{command}");
        assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty(), "{command}");
        let settled = repeated(async || outbox.first.settle(&published(&claimed)).await).await;
        assert_eq!(settled[0].outcome, Outcome::Applied, "{command}");
        outbox.is_as_new().await;
    }
}

#[tokio::test]
async fn a_settlement_that_never_commits_leaves_its_run_to_the_next_claim() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let abandoned = outbox.claimed(&["a", "a", "b", "b"]).await;
    faulty.fail("commitTransaction", 1_000, doc! { "closeConnection": true });
    outbox.first.settle(&published(&abandoned)).await.unwrap_err();
    faulty.heal();
    outbox.clock.advance(LEASE * 2);
    let claimed = repeated(async || outbox.second.claim(ask(10)).await).await;
    assert_eq!(claimed.entries.len(), 2, "half of four");
    let late = settle_all(&outbox.first, &abandoned, &Verdict::Published).await;
    assert_eq!((late[0].outcome, outbox.left().await), (Outcome::Fenced, 4));
}

/// Whoever wants the lane meets the settlement's first write, and not an old state behind its back.
#[tokio::test]
async fn a_claim_between_the_writes_of_a_settlement_takes_nothing_of_it() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let claimed = outbox.claimed(&["a", "a", "b", "b"]).await;
    faulty.fail("delete", 1, doc! { "blockConnection": true, "blockTimeMS": 1_000 });
    outbox.clock.advance(LEASE * 2);
    let (first, call) = (outbox.first.clone(), published(&claimed));
    let settling = tokio::spawn(async move { first.settle(&call).await });
    let begun = Instant::now();
    while times_entered(&faulty) == 0 {
        assert!(begun.elapsed() < PATIENCE, "the deletion is missing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its lease has run out, so that this one would strike it if it could.
    let taken = repeated(async || outbox.second.claim(ask(10)).await).await;
    let settled = settling.await.unwrap().unwrap()[0];
    match settled.outcome {
        Outcome::Applied => assert!(taken.runs.is_empty(), "{taken:?}"),
        Outcome::Fenced => assert_eq!((taken.entries.len(), outbox.left().await), (2, 4)),
        other @ Outcome::AlreadyApplied => panic!("{other:?}"),
    }
    if settled.outcome == Outcome::Applied {
        outbox.is_as_new().await;
    }
}

/// Several runs are settled in one transaction; one that is stale among them fences itself alone.
#[tokio::test]
async fn several_published_runs_are_settled_together_or_each_alone() {
    let faulty = Faulty::server().await;
    for stale in [false, true] {
        let clock = TestClock::new();
        let config = MongoConfig::from_url(&faulty.server.url(SHOP)).unwrap().name(fresh_name()).lanes(8);
        let config = config.response_timeout(PATIENCE).test_clock(clock.clone());
        let outbox = MongoStorage::connect(config).await.unwrap();
        let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
        let messages: Vec<_> = keys.iter().flat_map(|key| [message(Some(key)), message(Some(key))]).collect();
        outbox.enqueue_alone(&messages).await.unwrap();
        let claimed = outbox.claim(ask(500)).await.unwrap();
        assert!(claimed.runs.len() > 4, "{claimed:?}");
        if stale {
            let settled = settle_first(&outbox, &claimed).await;
            assert_eq!(settled.outcome, Outcome::Applied);
        }
        let settled = settle_all(&outbox, &claimed, &Verdict::Published).await;
        for (position, settled) in settled.iter().enumerate() {
            let again = stale && position == 0;
            let wanted = if again { Outcome::AlreadyApplied } else { Outcome::Applied };
            assert_eq!(settled.outcome, wanted, "{position}");
            assert!(settled.at >= claimed.runs[position].claimed_at);
        }
        let stats = outbox.admin().unwrap().stats().await.unwrap();
        assert_eq!((stats.pending, stats.scheduled, stats.claimed), (0, 0, 0));
    }
}

/// What a relay leaves behind that is killed in the middle of a settlement: the server keeps its transaction for a while.
#[tokio::test]
async fn a_transaction_that_nobody_ends_holds_up_its_own_lane_alone() {
    let faulty = Faulty::server().await;
    let clock = TestClock::new();
    let config = MongoConfig::from_url(&faulty.server.url(SHOP)).unwrap().name(fresh_name()).lanes(8);
    let config = config.response_timeout(PATIENCE).test_clock(clock.clone());
    let outbox = MongoStorage::connect(config.clone()).await.unwrap();
    let other = MongoStorage::connect(config).await.unwrap();
    let messages: Vec<_> = (0..160).map(|number| message(Some(&format!("key-{}", number % 40)))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let held = outbox.claim(ask(500)).await.unwrap();
    let stuck = held.runs[0].token.unit;
    let client = Client::with_uri_str(faulty.server.url(SHOP)).await.unwrap();
    let lanes: Collection<Document> = client.database(SHOP).collection(&format!("{}.lanes", outbox.name()));
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let lane = doc! { "_id": i64::try_from(stuck).unwrap() };
    let writing = lanes.update_one(lane, doc! { "$set": { "held": false } }).session(&mut session);
    writing.await.unwrap();
    // Never dropped, so that the client does not end it either.
    std::mem::forget(session);
    clock.advance(LEASE * 2);
    let claimed = other.claim(ask(500)).await.unwrap();
    let units: Vec<u64> = claimed.runs.iter().map(|run| run.token.unit).collect();
    assert_eq!((units.len(), units.contains(&stuck)), (held.runs.len() - 1, false), "{units:?}");
    let begun = Instant::now();
    loop {
        let claimed = other.claim(ask(500)).await.unwrap();
        if claimed.runs.iter().any(|run| run.token.unit == stuck) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the lane never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Else its lane would be locked for as long as the server lets a transaction live.
#[tokio::test]
async fn a_transaction_that_a_lost_connection_left_open_is_ended_by_the_next_one() {
    let faulty = Faulty::server().await;
    let live_for = |seconds: i32| {
        let set = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": seconds };
        faulty.server.command(&set).unwrap();
    };
    live_for(3_600);
    let outbox = faulty.patient_outbox(Duration::from_secs(5)).await;
    let claimed = outbox.claimed(&["a", "a", "b"]).await;
    let lost = doc! { "failCommands": ["delete", "abortTransaction"], "closeConnection": true };
    faulty.fail("delete", 1_000, lost);
    let failed = outbox.first.settle(&published(&claimed)).await;
    faulty.heal();
    let settled = outbox.first.settle(&published(&claimed)).await;
    live_for(2);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(settled.unwrap()[0].outcome, Outcome::Applied);
    outbox.is_as_new().await;
}

async fn settle_first(outbox: &MongoStorage, claimed: &Claimed) -> Settled {
    outbox.settle(&published(claimed)).await.unwrap()[0]
}

/// Asks again while the transaction that nobody ended is in the way.
async fn repeated<T>(mut ask: impl AsyncFnMut() -> Result<T, pillarbox_core::Error>) -> T {
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

/// What a primary says that steps down within a transaction.
fn stepping_down() -> Document {
    doc! { "errorCode": 11_602, "errorLabels": ["TransientTransactionError"] }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_settles_once() {
    let faulty = Faulty::server().await;
    for (times, how) in [
        // The client and we repeat the commit.
        (3, doc! { "closeConnection": true }),
        // Never committed, as far as anybody knows, and then committed at the repetition of the whole.
        (50, doc! { "closeConnection": true }),
        // Committed at once, and never told.
        (50, lost_answer()),
    ] {
        for (call, kept) in [(retried as fn(&Claimed) -> Settlements, true), (published, false)] {
            let outbox = faulty.outbox().await;
            let claimed = outbox.claimed(&["a"]).await;
            faulty.fail("commitTransaction", times, how.clone());
            let settled = outbox.first.settle(&call(&claimed)).await;
            faulty.heal();
            let settled = match settled {
                Ok(settled) => settled,
                Err(error) => {
                    assert_eq!((times, error.effect()), (50, Effect::Unknown), "{error:?}");
                    repeated(async || outbox.first.settle(&call(&claimed)).await).await
                }
            };
            assert!(matches!(settled[0].outcome, Outcome::Applied | Outcome::AlreadyApplied));
            let again = outbox.first.settle(&call(&claimed)).await.unwrap();
            assert_eq!(again[0].outcome, Outcome::AlreadyApplied);
            outbox.clock.advance(Duration::from_secs(2));
            let next = outbox.second.claim(ask(10)).await.unwrap();
            let attempts: Vec<u32> = next.entries.iter().map(|entry| entry.attempts).collect();
            assert_eq!(attempts, if kept { vec![1] } else { Vec::new() });
        }
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

/// The table of errors, by what a real server answers: its kind, its words, and that it goes on afterwards.
#[tokio::test]
async fn every_code_of_the_server_is_told_as_its_kind() {
    use ErrorKind::{Misconfigured, Rejected, Unavailable, Unexpected};
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let place = faulty.server.address().to_string();
    for (codes, kind, words) in [
        (&[13][..], Misconfigured, "`readWrite`"),
        (&[18], Misconfigured, "the user and the password"),
        (&[20], Misconfigured, "--replSet"),
        (&[26], Misconfigured, "collection of this outbox is missing"),
        (&[10_334, 17_280], Rejected, "16 MB"),
        (&[6, 7, 89, 262, 9_001], Unavailable, "election"),
        (&[50, 64, 79, 100, 202], Unavailable, "in time"),
        (&[24, 112, 225, 244, 251, 256, 263], Unavailable, "met another one"),
        (&[239, 246], Unavailable, "snapshot"),
        (&[39, 14_031], Unavailable, "disk is full"),
        (&[2, 9], Unexpected, "not expected"),
        // One that says that it is not the primary, and the last: the client believes it until it hears from the server again.
        (&[10_107], Unavailable, "election"),
    ] {
        for code in codes {
            let namespace = format!("{SHOP}.{}.lanes", outbox.first.name());
            faulty.fail("aggregate", 10, doc! { "errorCode": *code, "namespace": namespace });
            let error = outbox.first.claim(ask(10)).await.unwrap_err();
            faulty.heal();
            let shown = error.report().to_string();
            assert_eq!(error.kind(), kind, "{code}: {shown}");
            assert!(shown.contains(words) && shown.contains(&place), "{code}: {shown}");
            assert!(shown.contains(&format!("code {code}")), "{code}: {shown}");
            let applied = matches!(kind, Misconfigured | Rejected);
            assert_eq!(error.effect() == Effect::NotApplied, applied, "{code}: {shown}");
        }
    }
    repeated(async || outbox.first.claim(ask(0)).await).await;
    outbox.is_as_new().await;
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
