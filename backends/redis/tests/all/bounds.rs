//! What one call may do is bounded, whatever is stored. Counted, not timed.

use crate::support::{LEASE, ask, config, connection, message, server, settle_all};
use pillarbox_core::{
    Filter, ListState, Listing, Message, Settlements, Storage as _, TestClock, Text, Timestamp, Verdict,
};
use pillarbox_redis::{RedisConfig, RedisStorage, layout};
use std::time::Duration;

async fn length(outbox: &RedisStorage, command: &str, key: &str) -> u64 {
    let key = format!("{{{}}}:{key}", outbox.name());
    redis::cmd(command).arg(key).query_async(&mut connection(server()).await).await.unwrap()
}

/// F21: twenty thousand are due at one instant, and a hundred thousand wait behind them.
#[tokio::test]
async fn promotion_is_bounded_per_claim() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let now = outbox.claim(ask(0)).await.unwrap().now;
    let due = now.after(Duration::from_secs(100));
    let mut connection = connection(server()).await;
    for batch in 0..120 {
        let due = if batch < 20 { due } else { due.after(LEASE * 1_000) };
        let messages: Vec<_> =
            (0..1_000).map(|_| Message::to("t").deliver_at(due).payload("").unwrap()).collect();
        let mut transaction = redis::pipe();
        outbox.append(transaction.atomic(), &messages).unwrap();
        transaction.exec_async(&mut connection).await.unwrap();
    }
    // Arrivals are sorted a bounded number at a time, and meanwhile a relay is told to come again at once.
    let mut left = length(&outbox, "LLEN", "inbox").await;
    assert_eq!(left, 120_000);
    while left > 0 {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        let now_left = length(&outbox, "LLEN", "inbox").await;
        assert!(left - now_left <= 500, "{left} to {now_left}");
        assert!(now_left == 0 || claimed.next_due == Some(claimed.now));
        assert_eq!(claimed.runs.len(), 0);
        left = now_left;
    }
    let claimed = outbox.claim(ask(500)).await.unwrap();
    assert_eq!(claimed.next_due, Some(due));
    clock.advance(Duration::from_secs(101));
    let mut delivered = 0;
    let mut waiting = length(&outbox, "ZCARD", "later").await;
    assert_eq!(waiting, 120_000);
    while delivered < 20_000 {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        assert!(claimed.entries.len() <= 500 && !claimed.runs.is_empty());
        delivered += claimed.entries.len();
        let now_waiting = length(&outbox, "ZCARD", "later").await;
        assert!(waiting - now_waiting <= 500, "{waiting} to {now_waiting}");
        waiting = now_waiting;
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!((delivered, waiting), (20_000, 100_000));
    for key in ["records", "ids"] {
        let command = if key == "ids" { "ZCARD" } else { "HLEN" };
        assert_eq!(length(&outbox, command, key).await, 100_000, "{key}");
    }
}

/// A key that is parked with a long backlog: its messages are moved aside a bounded number at a time, in order.
#[tokio::test]
async fn diversion_is_bounded_per_claim() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let messages: Vec<_> = (0..10_000).map(|_| message(Some("slow"))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    outbox.enqueue_alone(&[message(Some("other"))]).await.unwrap();
    let claimed = outbox.claim(ask(500)).await.unwrap();
    let retry = Verdict::Retry { after: Duration::from_secs(300), error: Text::from("no") };
    let rest = std::iter::repeat_n(Verdict::Release { after: Duration::ZERO }, 499);
    let mut call = Settlements::new();
    call.verdicts(claimed.runs[0].token, std::iter::once(retry).chain(rest));
    outbox.settle(&call).await.unwrap();
    let mut left = length(&outbox, "LLEN", "lane:0").await;
    assert_eq!(left, 9_501);
    let mut calls = 0;
    loop {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        calls += 1;
        let now_left = length(&outbox, "LLEN", "lane:0").await;
        assert!(left - now_left <= 1_000, "{left} to {now_left}");
        left = now_left;
        if !claimed.runs.is_empty() {
            let pillarbox_core::Content::Message(other) = &claimed.entries[0].content else { panic!() };
            assert_eq!(other.key().map(|key| &**key), Some("other"));
            break;
        }
        assert_eq!(claimed.next_due, Some(claimed.now), "there is more to move");
    }
    assert!(calls <= 11, "{calls}");
    // What was moved comes back in its order.
    clock.advance(Duration::from_secs(301));
    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        for entry in &claimed.entries {
            let pillarbox_core::Content::Message(message) = &entry.content else { panic!() };
            seen.push(message.id());
        }
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!(seen, messages.iter().map(Message::id).collect::<Vec<_>>());
}

/// Few large ones, and a run so long that its records would otherwise be read without a look at each.
#[tokio::test]
async fn an_answer_is_bounded_in_bytes() {
    for (batch, size, most) in [(10, 1_000_000, 9), (100, 200_000, 42)] {
        let clock = TestClock::new();
        let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
        for _ in 0..4 {
            let large: Vec<_> =
                (0..batch).map(|_| Message::to("t").key("a").payload(vec![0; size]).unwrap()).collect();
            outbox.enqueue_alone(&large).await.unwrap();
        }
        let mut drained = 0;
        while drained < 4 * batch {
            let claimed = outbox.claim(ask(500)).await.unwrap();
            assert!((1..=most).contains(&claimed.entries.len()), "{}", claimed.entries.len());
            drained += claimed.entries.len();
            settle_all(&outbox, &claimed, &Verdict::Published).await;
        }
    }
}

/// Long runs are read from their lanes after they were leased: in order, beside shorter ones that are in the answer, and again
/// when the claim is repeated.
#[tokio::test]
async fn long_and_short_runs_are_handed_out_together() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(4)).await.unwrap();
    let key =
        |lane| (0..).map(|number: u32| format!("key-{number}")).find(|key| layout::lane_of(key, 4) == lane);
    let keys: Vec<_> = (0..4).map(|lane| key(lane).unwrap()).collect();
    let mut wanted = Vec::new();
    for (key, count) in keys.iter().zip([3, 300, 1, 100]) {
        let messages: Vec<_> = (0..count).map(|_| message(Some(key))).collect();
        outbox.enqueue_alone(&messages).await.unwrap();
        wanted.push(messages);
    }
    let claim = ask(500);
    let claimed = outbox.claim(claim).await.unwrap();
    let again = outbox.claim(claim).await.unwrap();
    for claimed in [&claimed, &again] {
        assert_eq!(claimed.runs.len(), 4);
        for run in &claimed.runs {
            let found = claimed.entries_of(run).iter().map(|entry| match &entry.content {
                pillarbox_core::Content::Message(message) => message,
                pillarbox_core::Content::Undecodable(_) => panic!(),
            });
            let lane = usize::try_from(run.token.unit).unwrap();
            assert!(found.eq(wanted[lane].iter()), "lane {lane}");
        }
    }
    settle_all(&outbox, &claimed, &Verdict::Published).await;
    assert_eq!(outbox.claim(ask(500)).await.unwrap().entries.len(), 0);
    assert_eq!(outbox.admin().unwrap().stats().await.unwrap().pending, 0);
}

/// A deadly message among five hundred is found within log2(500) + 3 deaths, and nobody else is buried.
#[tokio::test]
async fn a_deadly_message_is_found_in_a_long_run() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let messages: Vec<_> = (0..2_000).map(|number| message(Some(&format!("key-{}", number % 50)))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let deadly = messages[777].id();
    let mut deaths = 0;
    let mut delivered = Vec::new();
    let mut buried = 0;
    loop {
        let mut claim = ask(500);
        let mut claimed = outbox.claim(claim).await.unwrap();
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claim = ask(500);
            claim.solo = true;
            claimed = outbox.claim(claim).await.unwrap();
            assert_eq!(claimed.entries.len(), 1);
            outbox.renew(&[claimed.runs[0].token], LEASE).await.unwrap();
        }
        buried += claimed.buried;
        if claimed.runs.is_empty() {
            if outbox.admin().unwrap().stats().await.unwrap().pending == 0 {
                break;
            }
            continue;
        }
        let ids: Vec<_> = claimed
            .entries
            .iter()
            .map(|entry| match &entry.content {
                pillarbox_core::Content::Message(message) => message.id(),
                pillarbox_core::Content::Undecodable(_) => panic!(),
            })
            .collect();
        if ids.contains(&deadly) {
            deaths += 1;
            clock.advance(LEASE * 3);
            continue;
        }
        delivered.extend(ids);
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert!(deaths <= 12, "{deaths} deaths");
    assert_eq!((buried, delivered.len()), (1, 1_999));
    let dead = outbox.admin().unwrap().get(deadly).await.unwrap().unwrap();
    assert_eq!(dead.strikes, 3);
    assert!(dead.reason.unwrap().contains("died 3 times"));
}

/// Messages that a relay died with are handed out apart from others: a run that mixed them would put the others under
/// suspicion too, and every progress would begin the search anew.
#[tokio::test]
async fn suspicion_does_not_spread() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock).lanes(1)).await.unwrap();
    let keyed = |count: usize| (0..count).map(|_| message(Some("a"))).collect::<Vec<_>>();
    outbox.enqueue_alone(&keyed(5)).await.unwrap();
    assert_eq!(outbox.claim(ask(500)).await.unwrap().entries.len(), 5);
    outbox.enqueue_alone(&keyed(10)).await.unwrap();
    clock.advance(LEASE * 2);
    for expected in [2, 2, 1, 10] {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        assert_eq!(claimed.entries.len(), expected);
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
}

/// F9, both ways: what comes back after a retry gets its share although the lanes never run dry, and the other way round.
#[tokio::test]
async fn neither_new_nor_returning_messages_starve() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let retry = Verdict::Retry { after: Duration::from_secs(1), error: Text::from("no") };
    let returning: Vec<_> = (0..10).map(|n| message(if n < 5 { None } else { Some("parked") })).collect();
    outbox.enqueue_alone(&returning[..6]).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    settle_all(&outbox, &claimed, &retry).await;
    outbox.enqueue_alone(&returning[6..]).await.unwrap();
    for limit in [10, 1] {
        let backlog: Vec<_> = (0..1_000).map(|n| message(Some(&format!("key-{n}")))).collect();
        outbox.enqueue_alone(&backlog).await.unwrap();
        clock.advance(Duration::from_secs(2));
        let (mut new, mut back) = (0, 0);
        for _ in 0..200 {
            let claimed = outbox.claim(ask(limit)).await.unwrap();
            let mut call = Settlements::new();
            for run in &claimed.runs {
                // What has failed fails again and again; the lanes stay full.
                let comes_back = claimed.entries_of(run).iter().any(|entry| entry.attempts > 0);
                *(if comes_back { &mut back } else { &mut new }) += run.len;
                let verdicts =
                    claimed.entries_of(run).iter().enumerate().map(|(at, _)| match (comes_back, at) {
                        (true, 0) => Verdict::Retry { after: Duration::ZERO, error: Text::from("no") },
                        _ => Verdict::Release { after: Duration::ZERO },
                    });
                call.verdicts(run.token, verdicts.collect::<Vec<_>>());
            }
            outbox.settle(&call).await.unwrap();
        }
        assert!(new >= 50 && back >= 50, "of a limit of {limit}: {new} new ones and {back} that came back");
    }
}

#[tokio::test]
async fn a_parked_key_that_is_handed_back_waits() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a"))]).await.unwrap();
    let claimed = outbox.claim(ask(1)).await.unwrap();
    let retry = Verdict::Retry { after: Duration::ZERO, error: Text::from("the first reason") };
    settle_all(&outbox, &claimed, &retry).await;
    let claimed = outbox.claim(ask(1)).await.unwrap();
    let mut call = Settlements::new();
    call.hand_back(claimed.runs[0].token, Duration::from_secs(100));
    let at = outbox.settle(&call).await.unwrap()[0].at;
    let claimed = outbox.claim(ask(1)).await.unwrap();
    assert_eq!((claimed.runs.len(), claimed.next_due), (0, Some(at.after(Duration::from_secs(100)))));
    let listing = Listing {
        state: ListState::Scheduled,
        filter: Filter::all(),
        cursor: Some(pillarbox_core::Cursor("2.0".into())),
        limit: 9,
    };
    let listed = outbox.admin().unwrap().list(listing).await.unwrap();
    assert_eq!(listed.messages[0].reason.as_deref(), Some("the first reason"));
    clock.advance(Duration::from_secs(101));
    assert_eq!(outbox.claim(ask(1)).await.unwrap().entries[0].attempts, 1);
}

/// More waiting keys than one claim looks at: all come, each once.
#[tokio::test]
async fn many_parked_keys_all_come_back() {
    let clock = TestClock::new();
    let outbox = RedisStorage::connect(config(&clock)).await.unwrap();
    let messages: Vec<_> =
        (0..3_000).map(|number| message(Some(&format!("key-{}", number % 1_000)))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let retry = Verdict::Retry { after: Duration::from_secs(5), error: Text::from("no") };
    let mut retried = 0;
    // The first of each key fails, the others follow it.
    loop {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        if claimed.runs.is_empty() && claimed.next_due != Some(claimed.now) {
            break;
        }
        let mut call = Settlements::new();
        for run in &claimed.runs {
            let mut seen = std::collections::HashSet::new();
            let verdicts = claimed.entries_of(run).iter().map(|entry| match &entry.content {
                pillarbox_core::Content::Message(message) if seen.insert(message.key().cloned()) => {
                    retried += 1;
                    retry.clone()
                }
                _ => Verdict::Release { after: Duration::ZERO },
            });
            call.verdicts(run.token, verdicts.collect::<Vec<_>>());
        }
        outbox.settle(&call).await.unwrap();
    }
    assert_eq!(retried, 1_000);
    let stats = outbox.admin().unwrap().stats().await.unwrap();
    assert_eq!((stats.pending, stats.scheduled, stats.claimed), (0, 3_000, 0));
    let mut listed = 0;
    let mut cursor = None;
    loop {
        let listing = Listing { state: ListState::Scheduled, filter: Filter::all(), cursor, limit: 70 };
        let page = outbox.admin().unwrap().list(listing).await.unwrap();
        assert!(page.messages.len() <= 70);
        listed += page.messages.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, 3_000);
    clock.advance(Duration::from_secs(6));
    let mut delivered = 0;
    while delivered < 3_000 {
        let claimed = outbox.claim(ask(500)).await.unwrap();
        assert!((1..=64).contains(&claimed.runs.len()), "{}", claimed.runs.len());
        delivered += claimed.entries.len();
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    for (command, key) in
        [("HLEN", "parked"), ("ZCARD", "parked:due"), ("ZCARD", "parked:units"), ("ZCARD", "ids")]
    {
        assert_eq!(length(&outbox, command, key).await, 0, "{key}");
    }
}

#[tokio::test]
async fn a_time_far_away_is_kept() {
    let outbox = RedisStorage::connect(config(&TestClock::new())).await.unwrap();
    for micros in [i64::MAX, i64::MIN, -1, 253_402_300_799_000_000] {
        let at = Timestamp::from_micros(micros);
        let message = Message::to("t").deliver_at(at).payload("").unwrap();
        assert_eq!(layout::decode(&layout::encode(&message, 0).into()).unwrap().deliver_at(), Some(at));
        outbox.enqueue_alone(&[message]).await.unwrap();
    }
    // Those before the epoch are due, the others wait.
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 2);
    assert_eq!(outbox.admin().unwrap().stats().await.unwrap().scheduled, 2);
}

/// The server's own slow log: no call of a script held it up, whatever was stored.
#[tokio::test]
async fn no_call_scans_what_is_stored() {
    let server = pillarbox_testkit::servers::RedisServer::start().unwrap();
    let outbox = RedisStorage::connect(RedisConfig::from_url(&server.url()).unwrap()).await.unwrap();
    for _ in 0..100 {
        let messages: Vec<_> = (0..1_000).map(|number| message(Some(&format!("key-{number}")))).collect();
        outbox.enqueue_alone(&messages).await.unwrap();
    }
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let claimed = outbox.claim(ask(500)).await.unwrap();
    settle_all(&outbox, &claimed, &Verdict::Published).await;
    outbox.admin().unwrap().stats().await.unwrap();
    // Every command that the scripts ran, as the server counted them.
    let calls: u64 = server
        .command(&["INFO", "commandstats"])
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok())
        .sum();
    assert!(calls < 400, "{calls} commands for one claim, one settlement and one count");
}
