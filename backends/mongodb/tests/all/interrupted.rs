//! Claims and settlements that are interrupted between two of their writes, at points that the server is told to fail at.

use crate::faulty::{FAULTS, Faulty, PATIENCE, repeated, times_entered};
use crate::support::{LEASE, SHOP, ask, fresh_name, message, settle_all};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};
use pillarbox_core::{
    Claimed, Content, Effect, Entry, ErrorKind, MessageId, Outcome, Settled, Settlements, Storage as _,
    TestClock, Text, Verdict,
};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::servers::MongoReplicaSet;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

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

/// Has no write confirmed by the majority while `mode` is `alwaysOn`.
fn followers_lag(set: &MongoReplicaSet, primary: usize, mode: &str) {
    for node in (0..MongoReplicaSet::NODES).filter(|node| *node != primary) {
        set.command(node, &doc! { "configureFailPoint": "stopReplProducer", "mode": mode }).unwrap();
    }
}

/// Published but for the last one, which takes a transaction.
fn all_but_the_last(claimed: &Claimed) -> Settlements {
    let mut call = Settlements::new();
    let run = claimed.runs[0];
    let mut verdicts = vec![Verdict::Published; run.len as usize];
    *verdicts.last_mut().unwrap() = Verdict::Release { after: Duration::ZERO };
    call.verdicts(run.token, verdicts);
    call
}

/// The writes of a settlement that publishes its run as a whole.
const SETTLEMENT: [&str; 2] = ["update", "delete"];

#[tokio::test]
async fn a_settlement_cut_off_between_its_writes_is_run_again() {
    let faulty = Faulty::server().await;
    for command in SETTLEMENT {
        for how in [doc! { "closeConnection": true }, stepping_down(), lost_answer()] {
            // The first one of these commands, or the next one too.
            for times in 1..=2 {
                let outbox = faulty.outbox().await;
                let claimed = outbox.claimed(&["a", "a", "b"]).await;
                faulty.fail(command, times, how.clone());
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
}

#[tokio::test]
async fn a_settlement_that_never_gets_through_is_repeated() {
    let faulty = Faulty::server().await;
    for (command, begun) in [("update", false), ("delete", true)] {
        let outbox = faulty.outbox().await;
        let claimed = outbox.claimed(&["a", "a", "b"]).await;
        faulty.fail(command, 1_000, doc! { "closeConnection": true });
        let error = outbox.first.settle(&published(&claimed)).await.unwrap_err();
        faulty.heal();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{command}");
        assert_eq!((outbox.left().await, outbox.is_being_cleared().await), (3, begun), "{command}");
        // Nobody else gets any of it, and nobody counts it as pending.
        assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty(), "{command}");
        let stats = outbox.second.admin().unwrap().stats().await.unwrap();
        assert_eq!((stats.pending, stats.claimed), (0, 3), "{command}");
        let settled = outbox.first.settle(&published(&claimed)).await.unwrap();
        let wanted = if begun { Outcome::AlreadyApplied } else { Outcome::Applied };
        assert_eq!(settled[0].outcome, wanted, "{command}");
        outbox.is_as_new().await;
    }
}

/// What a relay leaves behind that is killed after its settlement has decided: the messages are published, whoever deletes them.
#[tokio::test]
async fn a_settlement_cut_off_after_its_note_is_ended_by_the_next_claim() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    outbox.first.enqueue_alone(&[message(Some("a")), message(Some("a")), message(None)]).await.unwrap();
    let claim = ask(10);
    let cut_off = outbox.first.claim(claim).await.unwrap();
    faulty.fail("delete", 1_000, doc! { "closeConnection": true });
    outbox.first.settle(&published(&cut_off)).await.unwrap_err();
    faulty.heal();
    // It is settled for whoever asks.
    let renewed = outbox.second.renew(&[cut_off.runs[0].token], LEASE).await.unwrap();
    assert_eq!(renewed[0].outcome, Outcome::AlreadyApplied);
    // Also the same claim again gets nothing of it.
    for claim in [claim, ask(10)] {
        let claimed = outbox.second.claim(claim).await.unwrap();
        assert!(claimed.runs.is_empty(), "{claimed:?}");
        assert_eq!(claimed.next_due, Some(cut_off.runs[0].lease_until));
    }
    outbox.clock.advance(LEASE * 2);
    assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty());
    assert_eq!((outbox.left().await, outbox.is_being_cleared().await), (0, false));
    let late = settle_all(&outbox.first, &cut_off, &Verdict::Published).await;
    assert_eq!(late[0].outcome, Outcome::AlreadyApplied);
    outbox.is_as_new().await;
}

/// Nothing is deleted before the majority knows that it is published, and no lane is free before the majority has the deletion: whatever a
/// failover takes back, it hands out nothing again that was settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_a_settlement_waits_for_the_majority_of_the_one_before() {
    let set = spawn_blocking(|| MongoReplicaSet::start_with(&FAULTS).unwrap()).await.unwrap();
    let config = MongoConfig::from_url(&set.url(SHOP)).unwrap().name(fresh_name()).lanes(1);
    let outbox = MongoStorage::connect(config.response_timeout(Duration::from_secs(3))).await.unwrap();
    let primary = set.primary().unwrap();
    let lagging = |mode: &str| followers_lag(&set, primary, mode);
    let on_primary = |of: &str, filter: Document| {
        let count = doc! { "count": format!("{}.{of}", outbox.name()), "query": filter, "$db": SHOP };
        set.command(primary, &count).unwrap().get_i32("n").unwrap()
    };
    let claimed = async || {
        outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
        outbox.claim(ask(10)).await.unwrap()
    };

    let unnoted = claimed().await;
    lagging("alwaysOn");
    for _ in 0..2 {
        let error = outbox.settle(&published(&unnoted)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
        assert_eq!(on_primary("messages", doc! {}), 2);
    }
    lagging("off");
    let settled = repeated(async || outbox.settle(&published(&unnoted)).await).await;
    assert_eq!(settled[0].outcome, Outcome::AlreadyApplied);

    let undeleted = claimed().await;
    let slow = doc! { "failCommands": ["delete"], "blockConnection": true, "blockTimeMS": 1_500 };
    let slow = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": slow };
    set.command(primary, &slow).unwrap();
    let (settling, call) = (outbox.clone(), published(&undeleted));
    let settling = tokio::spawn(async move { settling.settle(&call).await });
    let begun = Instant::now();
    while times_entered(|command| set.command(primary, command).unwrap()) == 0 {
        assert!(begun.elapsed() < PATIENCE, "the deletion is missing");
    }
    lagging("alwaysOn");
    let error = settling.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    assert_eq!((on_primary("messages", doc! {}), on_primary("lanes", doc! { "clearing": true })), (0, 1));
    lagging("off");
    let settled = repeated(async || outbox.settle(&published(&undeleted)).await).await;
    assert_eq!(settled[0].outcome, Outcome::AlreadyApplied);
    assert_eq!(claimed().await.entries.len(), 2);
}

#[tokio::test]
async fn a_settlement_that_never_commits_leaves_its_run_to_the_next_claim() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let abandoned = outbox.claimed(&["a", "a", "b", "b"]).await;
    faulty.fail("commitTransaction", 1_000, doc! { "closeConnection": true });
    outbox.first.settle(&all_but_the_last(&abandoned)).await.unwrap_err();
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
    while faulty.times_entered() == 0 {
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
    let failed = outbox.first.settle(&all_but_the_last(&claimed)).await;
    faulty.heal();
    let settled = outbox.first.settle(&all_but_the_last(&claimed)).await;
    live_for(2);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(settled.unwrap()[0].outcome, Outcome::Applied);
    let last = outbox.second.claim(ask(10)).await.unwrap();
    assert_eq!(last.entries.len(), 1);
    settle_all(&outbox.second, &last, &Verdict::Published).await;
    outbox.is_as_new().await;
}

async fn settle_first(outbox: &MongoStorage, claimed: &Claimed) -> Settled {
    outbox.settle(&published(claimed)).await.unwrap()[0]
}

/// What a primary says that steps down within a transaction.
fn stepping_down() -> Document {
    doc! { "errorCode": 11_602, "errorLabels": ["TransientTransactionError"] }
}

#[tokio::test]
async fn a_settlement_whose_answer_is_lost_settles_once() {
    let faulty = Faulty::server().await;
    for (times, how) in [
        // The client and we repeat it.
        (3, doc! { "closeConnection": true }),
        // Never committed, as far as anybody knows, and then committed at the repetition of the whole.
        (50, doc! { "closeConnection": true }),
        // Committed at once, and never told.
        (50, lost_answer()),
    ] {
        for (call, decides, kept) in [
            (retried as fn(&Claimed) -> Settlements, "commitTransaction", true),
            (published, "update", false),
        ] {
            let outbox = faulty.outbox().await;
            let claimed = outbox.claimed(&["a"]).await;
            faulty.fail(decides, times, how.clone());
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
    for (command, how) in [("update", lost_answer()), ("find", doc! { "closeConnection": true })] {
        outbox.first.enqueue_alone(&[message(Some("a")), message(Some("b"))]).await.unwrap();
        let (claim, before) = (ask(10), outbox.lane().await.get_i64("fence").unwrap());
        let skipped = if command == "find" { 2 } else { 0 };
        faulty.fail_after(skipped, command, how);
        let error = outbox.first.claim(claim).await.unwrap_err();
        faulty.heal();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
        assert!(outbox.second.claim(ask(10)).await.unwrap().runs.is_empty());
        let claimed = outbox.first.claim(claim).await.unwrap();
        let fence = i64::try_from(claimed.runs[0].token.fence).unwrap();
        assert_eq!((fence, claimed.entries.len()), (before + 1, 2), "{command}");
        settle_all(&outbox.first, &claimed, &Verdict::Published).await;
        outbox.is_as_new().await;
    }
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
    let lagging = |mode: &str| followers_lag(&set, primary, mode);
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

fn id(entry: &Entry) -> Option<MessageId> {
    match &entry.content {
        Content::Message(message) => Some(message.id()),
        Content::Undecodable(_) => None,
    }
}
