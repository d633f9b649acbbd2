//! Servers and connections that fail in the middle.

use crate::support::{
    TOPIC, all_ok, config, context, failure, message, payloads, publish, received, server, transport,
};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_nats::{NatsConfig, NatsTransport};
use pillarbox_testkit::fault::crash_after;
use pillarbox_testkit::servers::{NatsServer, Proxy};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a relay does: sends again what was not confirmed, each key from its first failure on.
async fn deliver(transport: &NatsTransport, mut left: Vec<Message>, confirmed: &AtomicUsize) -> u32 {
    let mut calls = 0;
    while !left.is_empty() {
        calls += 1;
        assert!(calls < 1_000, "{} messages are never confirmed", left.len());
        let outcomes = publish(transport, &left).await;
        let mut failed = Vec::new();
        for (index, message) in left.into_iter().enumerate() {
            match outcomes.outcome(index) {
                Some(Ok(())) => drop(confirmed.fetch_add(1, Ordering::Relaxed)),
                Some(Err(error)) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Unavailable,
                        "an outage is charged to nobody: {error:?}"
                    );
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
    calls
}

/// Keyed and unkeyed messages.
fn mixed(numbers: Range<usize>) -> Vec<Message> {
    let key = |number: usize| (!number.is_multiple_of(5)).then(|| format!("key-{}", number % 5));
    numbers.map(|number| message(TOPIC, key(number).as_deref(), &number.to_string())).collect()
}

/// Nothing is lost, and first arrivals of a key are in order.
async fn all_arrived_in_order(server: &NatsServer, count: usize) {
    let mut seen = HashSet::new();
    let mut last = [None; 5];
    for payload in payloads(server).await {
        let number: usize = payload.parse().unwrap();
        if seen.insert(number) && !number.is_multiple_of(5) {
            assert!(last[number % 5] < Some(number), "{number} after {:?}", last[number % 5]);
            last[number % 5] = Some(number);
        }
    }
    assert_eq!(seen.len(), count, "lost");
}

/// Calls `disturb` each time that so many more messages have passed, as the proxy counts the bytes of acknowledgements.
fn disturb_as_it_flows(
    proxy: &Arc<Proxy>,
    times: usize,
    every: u64,
    disturb: impl Fn() + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let proxy = proxy.clone();
    tokio::task::spawn_blocking(move || {
        for _ in 0..times {
            let (begin, before) = (Instant::now(), proxy.reply_bytes());
            while proxy.reply_bytes() < before + every {
                assert!(begin.elapsed() < Duration::from_secs(60), "nothing flows");
                std::thread::yield_now();
            }
            disturb();
        }
    })
}

async fn behind(proxy: &Proxy, server: &NatsServer) -> NatsTransport {
    NatsTransport::connect(NatsConfig::from_url(&proxy.through(&server.url())).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_in_the_middle_nothing_is_lost_and_keys_keep_their_order() {
    let server = Arc::new(server().await);
    let proxy = Arc::new(Proxy::start(server.address()).unwrap());
    let transport = behind(&proxy, &server).await;
    let victim = server.clone();
    let killing = disturb_as_it_flows(&proxy, 6, 20_000, move || {
        victim.kill();
        victim.restart().unwrap();
    });
    let (mut calls, confirmed) = (0, AtomicUsize::new(0));
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 4_000 {
        is_over = killing.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 500), &confirmed).await;
        sent += 500;
    }
    killing.await.unwrap();
    assert!(calls as usize > sent / 500, "no kill was noticed");
    assert_eq!(confirmed.into_inner(), sent);
    all_arrived_in_order(&server, sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_in_the_middle_lose_nothing() {
    let server = Arc::new(server().await);
    let proxy = Arc::new(Proxy::start(server.address()).unwrap());
    let transport = behind(&proxy, &server).await;
    let cut = proxy.clone();
    let breaking = disturb_as_it_flows(&proxy, 10, 10_000, move || cut.cut());
    let (mut calls, confirmed) = (0, AtomicUsize::new(0));
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 3_000 {
        is_over = breaking.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 300), &confirmed).await;
        sent += 300;
    }
    breaking.await.unwrap();
    assert!(calls as usize > sent / 300, "no cut was noticed");
    all_arrived_in_order(&server, sent).await;
    // Connections that broke are not made again in the background.
    let begin = Instant::now();
    while proxy.open_connections() > 1 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{} connections are open",
            proxy.open_connections()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The acknowledgement is lost and the message is there: its fate is unknown, and sent again it is stored once.
#[tokio::test]
async fn a_lost_acknowledgement_is_unknown() {
    let server = server().await;
    let proxy = Proxy::start(server.address()).unwrap();
    let transport = behind(&proxy, &server).await;
    proxy.stall_replies();
    let batch = [message(TOPIC, None, "x")];
    let cut = async {
        let begin = Instant::now();
        while payloads(&server).await.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not arrive");
        }
        proxy.cut();
        proxy.heal().unwrap();
    };
    let (mut outcomes, ()) = futures_util::future::join(publish(&transport, &batch), cut).await;
    let error = outcomes.take(0).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(payloads(&server).await, ["x"]);
}

/// A server that hangs: the connection lives, so nothing is known; the probe says that it is an outage.
#[tokio::test]
async fn a_server_that_hangs_and_goes_on() {
    let server = server().await;
    let short = Duration::from_secs(1);
    let transport =
        NatsTransport::connect(config(&server).confirm_timeout(short).connect_timeout(short)).await.unwrap();
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
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let error = failure(&transport, message(TOPIC, None, "no connection")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
    server.resume().unwrap();
    deliver(&transport, messages, &AtomicUsize::new(0)).await;
    all_arrived_in_order(&server, 50).await;
}

/// While it is away everything is certain, and nothing waits to be sent later.
#[tokio::test]
async fn nothing_is_sent_after_an_outage_but_what_is_published_then() {
    let server = server().await;
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

/// A stream that is away while somebody makes it anew.
#[tokio::test]
async fn a_stream_that_is_deleted_and_made_again() {
    let server = server().await;
    let transport = transport(&server).await;
    context(&server).await.delete_stream("ORDERS").await.unwrap();
    let error = failure(&transport, message(TOPIC, None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unroutable, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains(TOPIC), "{error}");
    crate::support::stream(&server, async_nats::jetstream::stream::Config::default()).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
}

/// Dropped publishes at every await: what they wrote is true, the next one has its own answers, and one connection serves all.
#[tokio::test]
async fn dropped_at_every_await() {
    let server = server().await;
    let proxy = Proxy::start(server.address()).unwrap();
    let transport = behind(&proxy, &server).await;
    let mut ended = 0;
    for polls in 0..500 {
        let batch = mixed(0..40);
        let mut outcomes = Outcomes::new();
        outcomes.reset(batch.len());
        let has_ended = crash_after(transport.publish(&batch, &mut outcomes), polls).await.is_some();
        let next = [message(TOPIC, None, "x"), message("nobody.listens", None, "y")];
        let mut after = publish(&transport, &next).await;
        assert!(after.take(0).unwrap().is_ok());
        assert_eq!(after.take(1).unwrap().unwrap_err().kind(), ErrorKind::Unroutable);
        let arrived: HashSet<_> =
            received(&server).await.unwrap().into_iter().map(|received| received.id).collect();
        for (index, message) in batch.iter().enumerate() {
            match outcomes.outcome(index) {
                Some(outcome) => assert!(outcome.is_ok() && arrived.contains(&message.id()), "{outcome:?}"),
                None => assert!(!has_ended),
            }
        }
        ended += u32::from(has_ended);
        if ended == 3 {
            assert_eq!(proxy.accepted_connections(), 1);
            return;
        }
    }
    panic!("a publish of 40 messages takes more than 500 polls");
}

/// The client's queue dies with its connection: what waited there when the publish was cut off is never sent.
#[tokio::test]
async fn what_waited_in_the_client_is_not_sent_by_a_later_connection() {
    let server = server().await;
    let proxy = Proxy::start(server.address()).unwrap();
    let transport = behind(&proxy, &server).await;
    proxy.stall();
    // More than the network's buffers hold.
    let payload = "x".repeat(900_000);
    let batch: Vec<_> = (0..60).map(|_| message(TOPIC, None, &payload)).collect();
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    assert!(crash_after(transport.publish(&batch, &mut outcomes), 2).await.is_none());
    proxy.cut();
    proxy.heal().unwrap();
    let begin = Instant::now();
    let answered = || begin.elapsed() < Duration::from_secs(60);
    while transport.probe(Destination::ONLY).await.is_err() {
        assert!(answered(), "the transport does not connect again");
    }
    // The first connection, the client's own attempt to make it again, and the transport's new one.
    while proxy.accepted_connections() < 3 || proxy.open_connections() > 1 {
        assert!(answered(), "{} connections were made", proxy.accepted_connections());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    all_ok(&publish(&transport, &[message(TOPIC, None, "after")]).await);
    assert_eq!(payloads(&server).await.len(), 1);
}
