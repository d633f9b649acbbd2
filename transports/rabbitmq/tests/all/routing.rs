//! Topics that lead nowhere, and which message they are blamed on.

use crate::support::{Place, QUEUE, all_ok, error_at, is_ok, message, publish};
use lapin::ExchangeKind;
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Transport as _};
use std::sync::Arc;

/// F34: unroutable until a queue is bound, then delivered.
#[tokio::test]
async fn a_route_that_comes_late() {
    let place = Place::shared().await;
    let transport = place.transport("transport.exchange=orders&transport.declare=topic").await;
    let batch = [message("orders.created")];
    for _ in 0..2 {
        let outcomes = publish(&transport, &batch).await;
        let error = error_at(&outcomes, 0);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unroutable, Effect::NotApplied));
        let report = error.report();
        assert!(report.contains("\"orders\"") && report.contains("\"orders.created\""), "{report}");
        transport.probe(Destination::ONLY).await.unwrap();
    }
    place.bind("orders", "orders.*").await;
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(place.take_all().await.len(), 1);
}

/// F34: an exchange that is not there makes all of the batch unroutable, and the transport goes on when it is.
#[tokio::test]
async fn an_exchange_that_comes_late() {
    let place = Place::shared().await;
    let transport = place.transport("transport.exchange=orders").await;
    let batch: Vec<_> = (0..50).map(|_| message("orders.created")).collect();
    for _ in 0..3 {
        let outcomes = publish(&transport, &batch).await;
        for index in 0..batch.len() {
            let error = error_at(&outcomes, index);
            assert_eq!(error.kind(), ErrorKind::Unroutable, "{}", error.report());
        }
        assert!(error_at(&outcomes, 0).report().contains("'orders'"), "{}", error_at(&outcomes, 0).report());
        let probe = transport.probe(Destination::ONLY).await.unwrap_err();
        assert_eq!(probe.kind(), ErrorKind::Unroutable, "{}", probe.report());
    }
    place.exchange("orders", ExchangeKind::Topic).await;
    place.bind("orders", "#").await;
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(place.take_all().await.len(), batch.len());
}

/// Whatever the pattern of those that come back, each is told of exactly its own message.
#[tokio::test]
async fn returns_are_told_of_their_messages() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    type Pattern = (&'static str, fn(usize) -> bool);
    let patterns: [Pattern; 7] = [
        ("all", |_| true),
        ("every second", |index| index % 2 == 0),
        ("all but the last", |index| index < 999),
        ("all but the first", |index| index > 0),
        ("the first half", |index| index < 500),
        ("the second half", |index| index >= 500),
        ("scattered", |index| index.wrapping_mul(0x9e37_79b9) >> 3 & 3 == 0),
    ];
    for (name, is_lost) in patterns {
        let batch: Vec<_> = (0..1_000)
            .map(|index| message(if is_lost(index) { "orders.nobody-listens" } else { QUEUE }))
            .collect();
        let outcomes = publish(&transport, &batch).await;
        let arrived = place.arrivals().await;
        for (index, message) in batch.iter().enumerate() {
            assert_eq!(is_ok(&outcomes, index), !is_lost(index), "{name}: {index}");
            assert_eq!(arrived.contains_key(&message.id().to_string()), !is_lost(index), "{name}: {index}");
            if is_lost(index) {
                assert_eq!(error_at(&outcomes, index).kind(), ErrorKind::Unroutable);
            }
        }
    }
}

/// Copies of one message in a batch are told apart by their topics.
#[tokio::test]
async fn copies_with_different_topics() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let first = message(QUEUE);
    let copy =
        |topic: &str| Message::given(first.id(), first.created_at(), topic.to_owned()).payload("{}").unwrap();
    let topics = [QUEUE, "orders.nobody-listens", QUEUE, "orders.nobody-listens", "orders.neither-here"];
    for _ in 0..20 {
        let batch = topics.map(copy);
        let outcomes = publish(&transport, &batch).await;
        for (index, topic) in topics.iter().enumerate() {
            assert_eq!(is_ok(&outcomes, index), *topic == QUEUE, "{index}: {:?}", outcomes.outcome(index));
        }
    }
}

/// Clones that publish at once, from several threads, each with messages that come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_at_once() {
    let place = Arc::new(Place::shared().await);
    let transport = place.transport("").await;
    let mut publishers = Vec::new();
    for publisher in 0..8_usize {
        let transport = transport.clone();
        publishers.push(tokio::spawn(async move {
            let mut confirmed = Vec::new();
            for round in 0..10 {
                let is_lost = |index: usize| (index + publisher + round).is_multiple_of(publisher + 2);
                let batch: Vec<_> = (0..60)
                    .map(|index| message(if is_lost(index) { "orders.nobody-listens" } else { QUEUE }))
                    .collect();
                let outcomes = publish(&transport, &batch).await;
                for (index, message) in batch.iter().enumerate() {
                    assert_eq!(is_ok(&outcomes, index), !is_lost(index), "{:?}", outcomes.outcome(index));
                    if !is_lost(index) {
                        confirmed.push(message.id().to_string());
                    }
                }
            }
            confirmed
        }));
    }
    let mut confirmed = Vec::new();
    for publisher in publishers {
        confirmed.append(&mut publisher.await.unwrap());
    }
    let arrived = place.arrivals().await;
    assert_eq!(arrived.len(), confirmed.len());
    assert!(confirmed.iter().all(|id| arrived.get(id) == Some(&1)));
}
