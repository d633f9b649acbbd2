//! Brokers and connections that fail in the middle.

use crate::support::{
    HANGS, TOPIC, all_ok, config, connect, failure, message, payloads, publish, server, server_behind_proxy,
    transport,
};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::fault::crash_after;
use pillarbox_testkit::servers::KafkaServer;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many of the mixed messages have no key, and the others one of four.
const EVERY: usize = 5;

#[derive(Debug, Default)]
struct Totals {
    calls: u32,
    confirmed: usize,
    unavailable: usize,
    charged: Vec<String>,
}

/// What a relay does: sends again what was not confirmed, each key from its first failure on.
async fn deliver(transport: &KafkaTransport, mut left: Vec<Message>, totals: &mut Totals) {
    let calls = totals.calls;
    while !left.is_empty() {
        totals.calls += 1;
        assert!(totals.calls < calls + 1_000, "{} messages are never confirmed", left.len());
        let outcomes = publish(transport, &left).await;
        let mut failed = Vec::new();
        for (index, message) in left.into_iter().enumerate() {
            match outcomes.outcome(index) {
                Some(Ok(())) => totals.confirmed += 1,
                Some(Err(error)) => {
                    // Of an outage nobody's attempts are charged.
                    match error.kind() {
                        ErrorKind::Unavailable => totals.unavailable += 1,
                        _ => totals.charged.push(error.report()),
                    }
                    failed.push(message);
                }
                None => failed.push(message),
            }
        }
        left = failed;
        if !left.is_empty() && transport.probe(Destination::ONLY).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Keyed and unkeyed messages.
fn mixed(numbers: Range<usize>) -> Vec<Message> {
    let key = |number: usize| (!number.is_multiple_of(EVERY)).then(|| format!("key-{}", number % EVERY));
    numbers.map(|number| message(TOPIC, key(number).as_deref(), &number.to_string())).collect()
}

/// Nothing is lost, and first arrivals of a key are in order. Prints the totals.
async fn all_arrived_in_order(server: &KafkaServer, attempted: usize, totals: &Totals) {
    let (mut seen, mut last, mut reordered) = (HashSet::new(), [None; EVERY], 0);
    let payloads = payloads(server).await;
    for payload in &payloads {
        let number: usize = payload.parse().unwrap();
        if seen.insert(number) && !number.is_multiple_of(EVERY) {
            reordered += usize::from(last[number % EVERY] > Some(number));
            last[number % EVERY] = Some(number);
        }
    }
    let lost = (0..attempted).filter(|number| !seen.contains(number)).count();
    println!(
        "attempted {attempted}   confirmed {}   delivered {}   lost {lost}   unexpected {}   duplicated {}   reordered {reordered}   \
         charged {}   unavailable {}   publishes {}",
        totals.confirmed,
        seen.len(),
        seen.iter().filter(|number| **number >= attempted).count(),
        payloads.len() - seen.len(),
        totals.charged.len(),
        totals.unavailable,
        totals.calls
    );
    assert!(totals.charged.is_empty(), "{:?}", totals.charged);
    assert_eq!((totals.confirmed, seen.len(), lost, reordered), (attempted, attempted, 0, 0));
}

/// Calls `disturb` each time that so many more messages have passed, as the proxy counts the bytes of confirmations.
fn disturb_as_it_flows(
    server: &Arc<KafkaServer>,
    times: usize,
    every: u64,
    disturb: impl Fn(&KafkaServer) + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let server = server.clone();
    tokio::task::spawn_blocking(move || {
        for _ in 0..times {
            let (begin, before) = (Instant::now(), server.proxy().reply_bytes());
            while server.proxy().reply_bytes() < before + every {
                assert!(begin.elapsed() < HANGS, "nothing flows");
                std::thread::yield_now();
            }
            disturb(&server);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_paused_and_restarted_in_the_middle_nothing_is_lost_and_keys_keep_their_order() {
    let server = Arc::new(server_behind_proxy());
    let transport = transport(&server).await;
    let disturbing = disturb_as_it_flows(&server, 6, 5_000, |server| {
        server.pause().unwrap();
        server.resume().unwrap();
        server.kill();
        server.restart().unwrap();
    });
    let mut totals = Totals::default();
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 2_000 {
        is_over = disturbing.is_finished();
        deliver(&transport, mixed(sent..sent + 500), &mut totals).await;
        sent += 500;
    }
    disturbing.await.unwrap();
    assert!(totals.calls as usize > sent / 500, "no kill was noticed");
    all_arrived_in_order(&server, sent, &totals).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_in_the_middle_lose_nothing() {
    let server = Arc::new(server_behind_proxy());
    let transport = transport(&server).await;
    let breaking = disturb_as_it_flows(&server, 8, 4_000, |server| server.proxy().cut());
    let mut totals = Totals::default();
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 1_500 {
        is_over = breaking.is_finished();
        deliver(&transport, mixed(sent..sent + 300), &mut totals).await;
        sent += 300;
    }
    breaking.await.unwrap();
    assert!(totals.calls as usize > sent / 300, "no cut was noticed");
    all_arrived_in_order(&server, sent, &totals).await;
}

/// The confirmation is lost and the message is there: its fate is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_confirmation_is_unknown() {
    let server = server_behind_proxy();
    let transport = transport(&server).await;
    // From now on the producer knows the topic, and has nothing to ask.
    all_ok(&publish(&transport, &[message(TOPIC, None, "first")]).await);
    let (proxy, payload) = (server.proxy(), "x".repeat(10_000));
    let before = proxy.request_bytes();
    proxy.stall_replies();
    let batch = [message(TOPIC, None, &payload)];
    let cut = async {
        let begin = Instant::now();
        while proxy.request_bytes() < before + 10_000 {
            assert!(begin.elapsed() < HANGS, "it is not sent");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.cut();
        proxy.heal().unwrap();
    };
    let (mut outcomes, ()) = futures_util::future::join(publish(&transport, &batch), cut).await;
    let error = outcomes.take(0).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    let begin = Instant::now();
    while payloads(&server).await.len() < 2 {
        assert!(begin.elapsed() < HANGS, "it does not arrive");
    }
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(payloads(&server).await.len(), 3);
}

/// A broker that hangs: the connection lives, so nothing is known; the probe says that it is an outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_and_goes_on() {
    let server = server();
    let short = Duration::from_secs(1);
    let transport = connect(config(&server).confirm_timeout(short).connect_timeout(short)).await;
    all_ok(&publish(&transport, &[message(TOPIC, Some("key-1"), "0")]).await);
    server.pause().unwrap();
    let messages = mixed(0..50);
    let outcomes = publish(&transport, &messages).await;
    let mut behind_others = 0;
    for index in 0..messages.len() {
        let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error:?}");
        behind_others += usize::from(error.effect() == Effect::NotApplied);
    }
    // Of each of the four keys one was sent.
    assert_eq!(behind_others, 40 - 4);
    let error = transport.probe(Destination::ONLY).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
    let error = failure(&transport, message(TOPIC, None, "no connection")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
    server.resume().unwrap();
    let transport = self::transport(&server).await;
    let mut totals = Totals::default();
    deliver(&transport, messages, &mut totals).await;
    all_arrived_in_order(&server, 50, &totals).await;
}

/// While it is away everything is certain, and nothing waits to be sent later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_after_an_outage_but_what_is_published_then() {
    let server = server();
    let transport = transport(&server).await;
    server.kill();
    for round in 0..3 {
        let outcomes = publish(&transport, &mixed(0..20)).await;
        for index in 0..20 {
            let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            // The first may be what notices.
            assert!(round == 0 || error.effect() == Effect::NotApplied, "{error:?}");
        }
    }
    server.restart().unwrap();
    all_ok(&publish(&transport, &[message(TOPIC, None, "after")]).await);
    assert_eq!(payloads(&server).await, ["after"]);
}

/// A topic that is away until somebody makes it, anew or for the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_later() {
    let server = server();
    server.delete_topic(TOPIC).unwrap();
    let transport = transport(&server).await;
    for topic in [TOPIC, "later"] {
        for _ in 0..2 {
            let error = failure(&transport, message(topic, Some("k"), "x")).await;
            assert_eq!(
                (error.kind(), error.effect()),
                (ErrorKind::Unroutable, Effect::NotApplied),
                "{error:?}"
            );
            assert!(error.to_string().contains(topic), "{error}");
        }
        server.create_topic(topic, crate::support::PARTITIONS).unwrap();
        all_ok(&publish(&transport, &[message(topic, Some("k"), "x")]).await);
    }
}

/// Dropped publishes at every await: what they wrote is true, the next one has its own answers, and the connections stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_at_every_await() {
    let server = server_behind_proxy();
    let transport = transport(&server).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "0")]).await);
    let connections = server.proxy().accepted_connections();
    let (mut ended, mut confirmed) = (0, Vec::new());
    for polls in 0..300 {
        let batch = mixed(0..20);
        let mut outcomes = Outcomes::new();
        outcomes.reset(batch.len());
        let has_ended = crash_after(transport.publish(&batch, &mut outcomes), polls).await.is_some();
        let next = [message(TOPIC, None, "1"), message("nobody.listens", None, "y")];
        let mut after = publish(&transport, &next).await;
        assert!(after.take(0).unwrap().is_ok());
        assert_eq!(after.take(1).unwrap().unwrap_err().kind(), ErrorKind::Unroutable);
        for (index, message) in batch.iter().enumerate() {
            match outcomes.outcome(index) {
                Some(outcome) => {
                    assert!(outcome.is_ok(), "{outcome:?}");
                    confirmed.push(message.id());
                }
                None => assert!(!has_ended),
            }
        }
        ended += u32::from(has_ended);
        if ended == 3 {
            assert_eq!(server.proxy().accepted_connections(), connections);
            let received = crate::support::received(&server).await.unwrap();
            let arrived: HashSet<_> = received.into_iter().map(|received| received.id).collect();
            assert!(confirmed.iter().all(|id| arrived.contains(id)), "a confirmed message did not arrive");
            return;
        }
    }
    panic!("a publish of 20 messages takes more than 300 polls");
}

/// The client's queue dies with its connection: what waited there when the publish was cut off is never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_in_the_client_is_not_sent_by_a_later_connection() {
    let server = server_behind_proxy();
    let (transport, proxy) = (transport(&server).await, server.proxy());
    all_ok(&publish(&transport, &[message(TOPIC, None, "before")]).await);
    proxy.stall();
    // More than the network's buffers hold.
    let payload = "x".repeat(900_000);
    let batch: Vec<_> = (0..30).map(|_| message(TOPIC, None, &payload)).collect();
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    assert!(crash_after(transport.publish(&batch, &mut outcomes), 2).await.is_none());
    proxy.cut();
    proxy.heal().unwrap();
    let (begin, mut totals) = (Instant::now(), Totals::default());
    // This broker may mistake the new producer for the old one at first, and then refuses it as fenced.
    deliver(&transport, vec![message(TOPIC, None, "after")], &mut totals).await;
    assert!(totals.charged.is_empty(), "{:?}", totals.charged);
    // Connections that broke are not made again in the background: those of the old producer end.
    while proxy.open_connections() > 2 {
        assert!(begin.elapsed() < HANGS, "{} connections are open", proxy.open_connections());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut arrived = payloads(&server).await;
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived, ["after", "before"]);
}
