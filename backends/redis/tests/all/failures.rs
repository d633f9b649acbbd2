//! What goes wrong around the outbox: corrupt records, lost scripts, killed servers, full memory.

use crate::support::{LEASE, ask, config, connection, message, server, settle_all};
use pillarbox_core::{
    Content, ErrorKind, Filter, ListState, Listing, Message, MessageId, Storage as _, TestClock, Text,
    Verdict,
};
use pillarbox_redis::{RedisConfig, RedisStorage, layout};
use pillarbox_testkit::servers::RedisServer;
use std::collections::HashSet;
use std::time::Duration;

#[tokio::test]
async fn corrupt_records_everywhere_stop_nobody() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let mut connection = connection(server()).await;
    let good = layout::encode(&message(Some("a")), 0);
    let mut records =
        vec![vec![], vec![0xE1], b"\xE1PBX".to_vec(), b"\xE1PBX and some garbage behind it".to_vec()];
    for cut in [1, 20, 47, 50, good.len() - 1] {
        records.push(good[..cut].to_vec());
    }
    let mut newer = good.clone();
    newer[0] = 9;
    records.push(newer);
    let mut long_key = good.clone();
    long_key[36] = 0xFF;
    records.push(long_key);
    let corrupt = records.len();
    for (at, list) in ["lane:0", "inbox"].iter().enumerate() {
        let list = format!("{{{}}}:{list}", outbox.name());
        for record in &records {
            redis::cmd("RPUSH").arg(&list).arg(record).exec_async(&mut connection).await.unwrap();
        }
        outbox.enqueue_alone(&[message(Some("a")), message(None)]).await.unwrap();
        let mut undecodable = 0;
        let mut healthy = 0;
        loop {
            let claimed = outbox.claim(ask(100)).await.unwrap();
            if claimed.runs.is_empty() {
                break;
            }
            let mut call = pillarbox_core::Settlements::new();
            for run in &claimed.runs {
                let verdicts = claimed.entries_of(run).iter().map(|entry| match &entry.content {
                    Content::Message(_) => {
                        healthy += 1;
                        Verdict::Published
                    }
                    Content::Undecodable(record) => {
                        undecodable += 1;
                        Verdict::Bury { reason: record.reason.clone() }
                    }
                });
                call.verdicts(run.token, verdicts.collect::<Vec<_>>());
            }
            outbox.settle(&call).await.unwrap();
        }
        assert_eq!((undecodable, healthy), (corrupt, 2), "{list}");
        let stats = outbox.admin().unwrap().stats().await.unwrap();
        assert_eq!((stats.dead, stats.pending), (((at + 1) * corrupt) as u64, 0), "{list}");
    }
    let listing = Listing { state: ListState::Dead, filter: Filter::all(), cursor: None, limit: 100 };
    let dead = outbox.admin().unwrap().list(listing).await.unwrap();
    assert_eq!(dead.messages.len(), 2 * corrupt);
    assert!(dead.messages.iter().all(|stored| stored.message().is_none()));
    assert!(dead.messages.iter().all(|stored| stored.reason.as_ref().unwrap().contains("no message")));
    let discarded = outbox.admin().unwrap().discard(Filter::all(), 1_000, false).await.unwrap();
    assert_eq!(discarded.count, 2 * corrupt as u64);
}

#[tokio::test]
async fn a_corrupt_record_can_be_retried_struck_and_redriven() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let mut connection = connection(server()).await;
    let list = format!("{{{}}}:lane:0", outbox.name());
    redis::cmd("RPUSH").arg(&list).arg("garbage").exec_async(&mut connection).await.unwrap();
    let retry = Verdict::Retry { after: Duration::from_secs(1), error: Text::from("no") };
    let claimed = outbox.claim(ask(1)).await.unwrap();
    settle_all(&outbox, &claimed, &retry).await;
    clock.advance(Duration::from_secs(2));
    let claimed = outbox.claim(ask(1)).await.unwrap();
    assert_eq!(claimed.entries[0].attempts, 1);
    clock.advance(Duration::from_secs(60));
    assert_eq!(outbox.claim(ask(1)).await.unwrap().suspects, 1);
    let mut solo = ask(1);
    solo.solo = true;
    let claimed = outbox.claim(solo).await.unwrap();
    let Content::Undecodable(record) = &claimed.entries[0].content else { panic!("it is garbage") };
    assert_eq!(&*record.bytes, b"garbage");
    settle_all(&outbox, &claimed, &Verdict::Bury { reason: Text::from("garbage") }).await;
    let redriven = outbox.admin().unwrap().redrive(Filter::all(), 10, false).await.unwrap();
    assert_eq!(redriven.count, 1);
    let claimed = outbox.claim(ask(1)).await.unwrap();
    assert_eq!((claimed.entries.len(), claimed.entries[0].attempts), (1, 0));
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = RedisServer::start().unwrap();
    let outbox = RedisStorage::open(&server.url()).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    for _ in 0..2 {
        server.command(&["SCRIPT", "FLUSH"]).unwrap();
        let claimed = outbox.claim(ask(1)).await.unwrap();
        assert_eq!(claimed.entries.len(), 1);
        server.command(&["SCRIPT", "FLUSH"]).unwrap();
        outbox.renew(&[claimed.runs[0].token], Duration::from_secs(60)).await.unwrap();
        server.command(&["SCRIPT", "FLUSH"]).unwrap();
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(outbox.admin().unwrap().stats().await.unwrap().pending, 0);
}

/// F31 on one server: with an append-only file that is written always, nothing that was acknowledged is lost.
#[tokio::test]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let server = RedisServer::options().append_only().start().unwrap();
    server.command(&["CONFIG", "SET", "appendfsync", "always"]).unwrap();
    let config = RedisConfig::from_url(&server.url()).unwrap().response_timeout(Duration::from_secs(2));
    let outbox = RedisStorage::connect(config).await.unwrap();
    let mut acknowledged: HashSet<MessageId> = HashSet::new();
    let mut delivered: HashSet<MessageId> = HashSet::new();
    for round in 0..3 {
        let producer = outbox.clone();
        let producing = tokio::spawn(async move {
            let mut stored = Vec::new();
            for number in 0..100_000_u32 {
                let message = message(Some(&format!("key-{}", number % 7)));
                match producer.enqueue_alone(std::slice::from_ref(&message)).await {
                    Ok(()) => stored.push(message.id()),
                    Err(_) => break,
                }
            }
            stored
        });
        while outbox.admin().unwrap().stats().await.unwrap().pending < 50 {}
        let claimed = outbox.claim(ask(20)).await.unwrap();
        delivered.extend(ids(&claimed.entries));
        if round != 1 {
            settle_all(&outbox, &claimed, &Verdict::Published).await;
        }
        server.kill();
        acknowledged.extend(producing.await.unwrap());
        server.restart().unwrap();
    }
    while outbox.admin().unwrap().stats().await.is_err() {}
    // One round's claim is still held, with its lane; everything else comes.
    loop {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        if claimed.runs.is_empty() {
            break;
        }
        delivered.extend(ids(&claimed.entries));
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert_eq!(lost_for_good(&outbox, &acknowledged, delivered).await, 0);
}

/// Counts what was neither delivered nor is still there, behind a lease that nobody waits for here.
async fn lost_for_good(
    outbox: &RedisStorage,
    acknowledged: &HashSet<MessageId>,
    mut delivered: HashSet<MessageId>,
) -> usize {
    let mut cursor = None;
    loop {
        let listing = Listing { state: ListState::Pending, filter: Filter::all(), cursor, limit: 1_000 };
        let page = outbox.admin().unwrap().list(listing).await.unwrap();
        delivered.extend(page.messages.iter().filter_map(pillarbox_core::Stored::id));
        cursor = page.next;
        if cursor.is_none() {
            return acknowledged.difference(&delivered).count();
        }
    }
}

fn ids(entries: &[pillarbox_core::Entry]) -> Vec<MessageId> {
    let id = |entry: &pillarbox_core::Entry| match &entry.content {
        Content::Message(message) => Some(message.id()),
        Content::Undecodable(_) => None,
    };
    entries.iter().filter_map(id).collect()
}

#[tokio::test]
async fn a_full_server_refuses_producers_and_still_drains() {
    let server = RedisServer::start().unwrap();
    let outbox = RedisStorage::open(&server.url()).await.unwrap();
    let large = |key| Message::to("t").key(key).payload(vec![b'x'; 100_000]).unwrap();
    for _ in 0..20 {
        outbox.enqueue_alone(&[large("a"), large("b")]).await.unwrap();
    }
    server.command(&["CONFIG", "SET", "maxmemory", "2mb"]).unwrap();
    let error = outbox.enqueue_alone(&[large("a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("memory is full"), "{error}");
    let mut drained = 0;
    loop {
        let claimed = outbox.claim(ask(10)).await.unwrap();
        if claimed.runs.is_empty() {
            break;
        }
        let token = claimed.runs[0].token;
        outbox.renew(&[token], Duration::from_secs(60)).await.unwrap();
        drained += claimed.entries.len();
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!(drained, 40);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    outbox.enqueue_alone(&[large("a")]).await.unwrap();
}

#[tokio::test]
async fn a_listener_that_was_cut_off_listens_again() {
    use pillarbox_testkit::servers::Proxy;
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let outbox = RedisStorage::open(&proxy.through(&server.url())).await.unwrap();
    let direct = RedisStorage::open(&server.url()).await.unwrap();
    let mut hints = outbox.wakeup().unwrap().subscribe();
    // The first hint says that it listens.
    hints.hinted().await;
    direct.enqueue_alone(&[message(None)]).await.unwrap();
    hints.hinted().await;
    proxy.cut();
    // Listening again counts as a hint, since some may have been missed.
    hints.hinted().await;
    direct.enqueue_alone(&[message(None)]).await.unwrap();
    hints.hinted().await;
}

/// A long run is read once it is leased. Here the lease runs out before the answer is there, and somebody else takes the lane.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_that_was_lost_before_it_was_read_is_not_handed_out() {
    use pillarbox_testkit::servers::Proxy;
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let clock = TestClock::new();
    let open = async |url: &str| {
        let config = RedisConfig::from_url(url).unwrap().lanes(1).test_clock(clock.clone());
        RedisStorage::connect(config).await.unwrap()
    };
    let slow = open(&proxy.through(&server.url())).await;
    let direct = open(&server.url()).await;
    direct.enqueue_alone(&vec![message(None); 200]).await.unwrap();
    // The server knows the script from now on, so that the next call is the claim itself.
    slow.claim(ask(0)).await.unwrap();
    proxy.stall_replies();
    let claim = ask(500);
    let claiming = tokio::spawn({
        let slow = slow.clone();
        async move { slow.claim(claim).await }
    });
    let leased = async || direct.admin().unwrap().stats().await.unwrap().claimed;
    while leased().await < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    clock.advance(LEASE * 2);
    let taken = direct.claim(ask(500)).await.unwrap();
    assert_eq!(taken.entries.len(), 100, "half of the run that was lost");
    proxy.heal().unwrap();
    let lost = claiming.await.unwrap().unwrap();
    assert_eq!((lost.runs.len(), lost.entries.len()), (0, 0));
    assert_eq!(lost.next_due, Some(lost.now));
    settle_all(&direct, &taken, &Verdict::Published).await;
}
