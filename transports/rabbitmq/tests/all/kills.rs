//! The broker itself dies, hangs or restarts.

use crate::support::{
    Place, Tally, all_failed, all_ok, error_at, is_ok, messages, nothing_is_lost, own_node, publish, until,
    until_it_answers,
};
use futures_util::future::join;
use pillarbox_core::{Effect, ErrorKind};

/// F28: a node is killed in the middle of a batch. What it confirmed is on its disk.
#[tokio::test]
async fn killed_in_the_middle_of_the_batch() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    place.purge().await;
    let batch = messages(15_000, 1_000);
    let (sent, confirmed) = (proxy.request_bytes(), proxy.reply_bytes());
    proxy.stall_requests_after(5_000_000);
    let kill = async {
        until("a part has arrived", || proxy.request_bytes() >= sent + 5_000_000).await;
        until("something is confirmed", || proxy.reply_bytes() > confirmed).await;
        // What arrives with the end of the connection may be lost, so the client gets the time to read: many turns of its runtime.
        until_still("nothing more is confirmed", 51, || proxy.reply_bytes()).await;
        node.kill();
        proxy.heal().unwrap();
    };
    let (outcomes, ()) = join(publish(&transport, &batch), kill).await;
    let tally = Tally::of(&outcomes, ErrorKind::Unavailable);
    assert!(
        tally.ok > 0 && tally.unknown + tally.not_applied > 0,
        "the kill was not in the middle: {tally:?}"
    );
    all_failed(&publish(&transport, &batch[..10]).await, ErrorKind::Unavailable, Effect::NotApplied);
    node.restart().unwrap();
    until_it_answers(&transport).await;
    nothing_is_lost(&place, &transport, &batch, &outcomes).await;
}

/// Killed before and after: what was confirmed survives, and the next publish needs no help.
#[tokio::test]
async fn killed_between_batches() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let transport = place.transport("").await;
    let batch = messages(200, 100);
    let outcomes = publish(&transport, &batch).await;
    all_ok(&outcomes);
    node.kill();
    // The client may learn of the end by this publish.
    let gone = publish(&transport, &messages(20, 100)).await;
    Tally::of(&gone, ErrorKind::Unavailable);
    all_failed(&publish(&transport, &messages(20, 100)).await, ErrorKind::Unavailable, Effect::NotApplied);
    node.restart().unwrap();
    until_it_answers(&transport).await;
    nothing_is_lost(&place, &transport, &batch, &outcomes).await;
    all_ok(&publish(&transport, &messages(20, 100)).await);
}

/// F33: a shutdown by an operator, who starts the broker again.
#[tokio::test]
async fn restarted_in_the_middle_of_the_batch() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    place.purge().await;
    let batch = messages(500, 100);
    // The confirms are held back, so that all are in flight however long the shutdown takes.
    proxy.stall_replies();
    let stop = async {
        tokio::task::yield_now().await;
        node.control(&["stop_app"]).unwrap();
        proxy.heal().unwrap();
    };
    let (outcomes, ()) = join(publish(&transport, &batch), stop).await;
    Tally::of(&outcomes, ErrorKind::Unavailable);
    let gone = publish(&transport, &messages(5, 10)).await;
    all_failed(&gone, ErrorKind::Unavailable, Effect::NotApplied);
    node.control(&["start_app"]).unwrap();
    until_it_answers(&transport).await;
    nothing_is_lost(&place, &transport, &batch, &outcomes).await;
}

/// A node that hangs: nothing is known of what was written, and it may come later.
#[tokio::test]
async fn paused_before_and_in_the_middle() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let transport = place.transport("transport.confirm_timeout=1s&transport.connect_timeout=2s").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    place.purge().await;
    node.pause().unwrap();
    let small = messages(20, 100);
    let outcomes = publish(&transport, &small).await;
    for index in 0..small.len() {
        let error = error_at(&outcomes, index);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Indeterminate, Effect::Unknown));
        assert!(error.description().contains("transport.confirm_timeout"), "{error}");
    }
    // More than the network's buffers hold: what was not written is certain.
    let large = messages(400, 60_000);
    let outcomes = publish(&transport, &large).await;
    let not_applied =
        (0..large.len()).filter(|index| error_at(&outcomes, *index).effect() == Effect::NotApplied).count();
    assert!(not_applied > 0);
    node.resume().unwrap();
    until_it_answers(&transport).await;
    let next = messages(20, 100);
    all_ok(&publish(&transport, &next).await);
    let arrived = place.arrivals().await;
    assert!(next.iter().all(|message| arrived.contains_key(&message.id().to_string())));
    for (index, message) in large.iter().enumerate() {
        if error_at(&outcomes, index).effect() == Effect::NotApplied {
            assert!(!arrived.contains_key(&message.id().to_string()), "message {index} came later");
        }
    }
}

/// A pause that is shorter than the timeout costs time only.
#[tokio::test]
async fn paused_for_a_moment() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "transport.confirm_timeout=30s").await;
    let batch = messages(2_000, 1_000);
    let before = proxy.request_bytes();
    let pause = async {
        until("a part is on its way", || proxy.request_bytes() > before + 100_000).await;
        node.pause().unwrap();
        // As long as the client takes to fill all buffers.
        until_still("nothing moves", 1, || proxy.request_bytes()).await;
        node.resume().unwrap();
    };
    let (outcomes, ()) = join(publish(&transport, &batch), pause).await;
    all_ok(&outcomes);
    assert!((0..batch.len()).all(|index| is_ok(&outcomes, index)));
    assert_eq!(place.arrivals().await.len(), batch.len());
}

/// Waits, bounded, until a count has not changed at so many looks in a row.
async fn until_still(what: &str, looks: u32, count: impl Fn() -> u64) {
    let (mut last, mut still) = (0, 0);
    until(what, || {
        let now = count();
        still = if std::mem::replace(&mut last, now) == now { still + 1 } else { 0 };
        still >= looks
    })
    .await;
}
