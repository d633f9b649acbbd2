//! Endpoints that fail in the middle.

use crate::support::{Server, config, failure, message, publish, transport};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_http::{HttpConfig, HttpTransport};
use pillarbox_testkit::servers::{Proxy, free_port};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn an_endpoint_that_is_away_is_unavailable() {
    let port = free_port().unwrap();
    for url in [
        format!("http://:s3cret@127.0.0.1:{port}/t0ken?transport.allow_private=true"),
        "http://:s3cret@no-such-host.invalid/t0ken".to_owned(),
    ] {
        let transport = HttpTransport::open(&url).await.unwrap();
        let error = failure(&transport, message("orders", None, "x")).await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
        let probe = transport.probe(Destination::ONLY).await.unwrap_err();
        assert_eq!(probe.kind(), ErrorKind::Unavailable, "{probe:?}");
        for error in [error, probe] {
            let shown = format!("{error} {error:?} {}", error.report());
            assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_indeterminate_and_delays_no_other_request() {
    let server = Server::start();
    server.hang(|request| request.body.starts_with(b"slow"));
    let transport = HttpTransport::new(config(&server).timeout(Duration::from_secs(2))).unwrap();
    let batch = ["slow", "quick", "quick"].map(|payload| message("orders", None, payload));
    let outcomes = publish(&transport, &batch).await;
    let error = outcomes.outcome(0).unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Indeterminate, Effect::Unknown), "{error:?}");
    assert!(error.to_string().contains("transport.timeout"), "{error}");
    assert!(outcomes.outcome(1).unwrap().is_ok() && outcomes.outcome(2).unwrap().is_ok());
    server.go_on();
    assert!(publish(&transport, &batch[..1]).await.outcome(0).unwrap().is_ok());
}

#[tokio::test]
async fn what_cannot_be_begun_in_time_is_given_back_unsent() {
    let server = Server::start();
    server.hang(|_| true);
    let config = config(&server).timeout(Duration::from_secs(1)).concurrency(3);
    let transport = HttpTransport::new(config).unwrap();
    let batch: Vec<_> = (0..40).map(|_| message("orders", None, "x")).collect();
    let outcomes = publish(&transport, &batch).await;
    let count = |kind| {
        let is = |index: &usize| outcomes.outcome(*index).unwrap().as_ref().unwrap_err().kind() == kind;
        (0..40).filter(is).count()
    };
    let (hung, given_back) = (count(ErrorKind::Indeterminate), count(ErrorKind::Unavailable));
    assert_eq!(hung + given_back, 40);
    assert_eq!(server.requests().len(), hung);
    assert!((3..=6).contains(&hung), "{hung}");
    server.go_on();
}

#[tokio::test]
async fn a_probe_that_is_not_answered_is_unavailable() {
    let server = Server::start();
    server.hang(|_| true);
    let transport = HttpTransport::new(config(&server).timeout(Duration::from_secs(1))).unwrap();
    let error = transport.probe(Destination::ONLY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.go_on();
    transport.probe(Destination::ONLY).await.unwrap();
}

/// What a relay does: sends again what was not confirmed.
async fn deliver(transport: &HttpTransport, mut left: Vec<Message>) -> u32 {
    let mut calls = 0;
    while !left.is_empty() {
        calls += 1;
        assert!(calls < 1_000, "{} messages are never confirmed", left.len());
        let mut outcomes = Outcomes::new();
        outcomes.reset(left.len());
        transport.publish(&left, &mut outcomes).await;
        let mut failed = Vec::new();
        for (index, message) in left.into_iter().enumerate() {
            match outcomes.take(index).unwrap() {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Unavailable,
                        "an outage is charged to nobody: {error:?}"
                    );
                    failed.push(message);
                }
            }
        }
        left = failed;
        if !left.is_empty() && transport.probe(Destination::ONLY).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    calls
}

fn mixed(numbers: Range<usize>) -> Vec<Message> {
    let key = |number: usize| (!number.is_multiple_of(5)).then(|| format!("key-{}", number % 5));
    numbers.map(|number| message("orders", key(number).as_deref(), &number.to_string())).collect()
}

/// Nothing is lost, and first arrivals of a key are in order.
fn all_arrived_in_order(server: &Server, count: usize) {
    let (mut seen, mut last) = (HashSet::new(), [None; 5]);
    for received in server.received().unwrap() {
        let number: usize = String::from_utf8(received.payload).unwrap().parse().unwrap();
        if seen.insert(number) && !number.is_multiple_of(5) {
            assert!(last[number % 5] < Some(number), "{number} after {:?}", last[number % 5]);
            last[number % 5] = Some(number);
        }
    }
    assert_eq!(seen.len(), count, "lost");
}

/// Calls `disturb` each time that `every` more requests have come, on a thread of its own.
fn disturb_as_it_grows(
    server: &Arc<Server>,
    times: usize,
    every: usize,
    disturb: impl Fn() + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let server = server.clone();
    tokio::task::spawn_blocking(move || {
        for time in 1..=times {
            assert!(server.have_come(time * every, Duration::from_secs(60)), "no requests come");
            disturb();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_in_the_middle_nothing_is_lost_and_keys_keep_their_order() {
    let server = Arc::new(Server::start());
    let transport = transport(&server);
    let victim = server.clone();
    let killing = disturb_as_it_grows(&server, 5, 80, move || victim.restart());
    let mut calls = 0;
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 600 {
        is_over = killing.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 100)).await;
        sent += 100;
    }
    killing.await.unwrap();
    assert!(calls as usize > sent / 100, "no kill was noticed");
    all_arrived_in_order(&server, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_in_the_middle_lose_nothing() {
    let server = Arc::new(Server::start());
    let proxy = Arc::new(Proxy::start(server.address).unwrap());
    let url = format!("{}?transport.allow_private=true", proxy.through(&server.url()));
    let transport = HttpTransport::new(HttpConfig::from_url(&url).unwrap()).unwrap();
    let cut = proxy.clone();
    let breaking = disturb_as_it_grows(&server, 8, 50, move || cut.cut());
    let mut calls = 0;
    let mut sent = 0;
    // Once more behind the last one, so that each is met.
    let mut is_over = false;
    while !is_over || sent < 600 {
        is_over = breaking.is_finished();
        calls += deliver(&transport, mixed(sent..sent + 100)).await;
        sent += 100;
    }
    breaking.await.unwrap();
    assert!(calls as usize > sent / 100, "no cut was noticed");
    all_arrived_in_order(&server, sent);
}
