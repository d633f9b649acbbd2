//! The network between the transport and its broker breaks.

use crate::support::{
    Place, Tally, all_failed, all_ok, error_at, is_ok, messages, nothing_is_lost, publish, until,
};
use futures_util::future::join;
use pillarbox_core::{Destination, Effect, ErrorKind, Transport as _};
use std::time::Duration;

/// Cut before: the next publish makes a new connection, whether the client has noticed the end or not.
#[tokio::test]
async fn cut_before_the_batch() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    for _ in 0..20 {
        proxy.cut();
        let batch = messages(50, 100);
        let outcomes = publish(&transport, &batch).await;
        // The end of the connection may be noticed by this very publish.
        Tally::of(&outcomes, ErrorKind::Unavailable);
        nothing_is_lost(&place, &transport, &batch, &outcomes).await;
    }
}

/// Cut in the middle: what was confirmed is there, what was not written is not, the rest is unknown.
#[tokio::test]
async fn cut_in_the_middle_of_the_batch() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    let mut total = Tally::default();
    for round in 1..=5_u64 {
        let batch = messages(1_000, 12_000);
        let before = proxy.request_bytes();
        let cut = async {
            until("a part is on its way", || proxy.request_bytes() >= before + round * 300_000).await;
            proxy.cut();
        };
        let (outcomes, ()) = join(publish(&transport, &batch), cut).await;
        let tally = Tally::of(&outcomes, ErrorKind::Unavailable);
        total.not_applied += tally.not_applied;
        total.ok += tally.ok;
        total.unknown += tally.unknown;
        nothing_is_lost(&place, &transport, &batch, &outcomes).await;
    }
    assert!(total.unknown > 0 && total.not_applied > 0, "no cut was in the middle: {total:?}");
}

/// Cut after: nothing was in flight, so nobody is told.
#[tokio::test]
async fn cut_after_the_batch() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    let batch = messages(100, 100);
    let outcomes = publish(&transport, &batch).await;
    proxy.cut();
    all_ok(&outcomes);
    nothing_is_lost(&place, &transport, &batch, &outcomes).await;
}

/// The broker has taken all, and its confirms are lost with the connection: unknown, all of them.
#[tokio::test]
async fn confirms_that_are_lost() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    place.purge().await;
    proxy.stall_replies();
    let batch = messages(100, 100);
    let before = proxy.request_bytes();
    let cut = async {
        until("all is on its way", || proxy.request_bytes() > before + 100 * 100).await;
        let queue = async || {
            let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
            let channel = place.channel().await;
            let declared = channel.queue_declare(crate::support::QUEUE.into(), options, Default::default());
            declared.await.unwrap().message_count()
        };
        while queue().await < 100 {}
        proxy.cut();
        proxy.heal().unwrap();
    };
    let (outcomes, ()) = join(publish(&transport, &batch), cut).await;
    all_failed(&outcomes, ErrorKind::Unavailable, Effect::Unknown);
    let arrived = place.arrivals().await;
    assert!(batch.iter().all(|message| arrived.get(&message.id().to_string()) == Some(&1)));
    all_ok(&publish(&transport, &batch).await);
}

/// A cable is unplugged: the publish ends with the confirm timeout, and the next one is on a new connection if it must be.
#[tokio::test]
async fn a_network_that_stalls() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "transport.confirm_timeout=1s&transport.connect_timeout=2s").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    proxy.stall();
    for _ in 0..3 {
        // So small a batch is wholly written: into the network's buffers.
        let outcomes = publish(&transport, &messages(10, 100)).await;
        for index in 0..10 {
            let error = error_at(&outcomes, index);
            let is_told = matches!(error.kind(), ErrorKind::Indeterminate | ErrorKind::Unavailable);
            assert!(is_told, "{}", error.report());
            assert!(error.description().contains("_timeout"), "{}", error.report());
        }
    }
    let probe = transport.probe(Destination::ONLY).await.unwrap_err();
    assert_eq!(probe.kind(), ErrorKind::Unavailable, "{}", probe.report());
    proxy.cut();
    proxy.heal().unwrap();
    place.purge().await;
    crate::support::until_it_answers(&transport).await;
    let batch = messages(10, 100);
    all_ok(&publish(&transport, &batch).await);
    let arrived = place.arrivals().await;
    assert!(batch.iter().all(|message| arrived.contains_key(&message.id().to_string())));
}

/// A stall that ends: held back messages and confirms arrive after their publish was given up, and nobody mistakes them.
#[tokio::test]
async fn confirms_that_are_late() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "transport.confirm_timeout=1s").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    for _ in 0..3 {
        proxy.stall_replies();
        let mut late = messages(30, 100);
        late[3] = crate::support::message("orders.nobody-listens");
        let outcomes = publish(&transport, &late).await;
        for index in 0..late.len() {
            assert_eq!(error_at(&outcomes, index).effect(), Effect::Unknown);
        }
        proxy.heal().unwrap();
        crate::support::until_it_answers(&transport).await;
        let mut next = messages(30, 100);
        next[8] = crate::support::message("orders.nobody-listens");
        let outcomes = publish(&transport, &next).await;
        for index in 0..next.len() {
            assert_eq!(is_ok(&outcomes, index), index != 8, "{index}: {:?}", outcomes.outcome(index));
        }
    }
}

/// A connection that is slow, not lost: messages trickle, and the confirm timeout starts anew with every sign of life.
#[tokio::test]
async fn a_slow_network() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    proxy.delay(Duration::from_millis(50));
    let batch = messages(200, 2_000);
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(place.take_all().await.len(), 200);
}

/// While connections are refused, each publish is answered at once and in full.
#[tokio::test]
async fn a_broker_that_refuses() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    proxy.refuse();
    let batch = messages(50, 100);
    // The first may learn of the end by itself.
    Tally::of(&publish(&transport, &batch).await, ErrorKind::Unavailable);
    place.purge().await;
    for _ in 0..10 {
        all_failed(&publish(&transport, &batch).await, ErrorKind::Unavailable, Effect::NotApplied);
    }
    proxy.heal().unwrap();
    all_ok(&publish(&transport, &batch).await);
    assert_eq!(place.arrivals().await.len(), 50);
}
