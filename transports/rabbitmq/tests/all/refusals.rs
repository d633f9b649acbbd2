//! What the broker, or the transport in its place, does not take.

use crate::support::{
    Place, QUEUE, all_failed, all_ok, control, error_at, is_ok, message, messages, nothing_is_lost, own_node,
    publish,
};
use lapin::types::{AMQPValue, FieldTable};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Transport as _};
use pillarbox_testkit::servers::RabbitMqNode;

#[tokio::test]
async fn a_payload_above_the_setting() {
    let place = Place::shared().await;
    let transport = place.transport("transport.max_payload=1000").await;
    assert_eq!(transport.guarantees(Destination::ONLY).max_payload, 1000);
    let batch: Vec<_> = [1000, 1001, 0].map(|size| Message::to(QUEUE).payload(vec![0; size]).unwrap()).into();
    let outcomes = publish(&transport, &batch).await;
    assert!(is_ok(&outcomes, 0) && is_ok(&outcomes, 2));
    let error = error_at(&outcomes, 1);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
    assert!(error.description().contains("transport.max_payload") && error.description().contains("1001"));
}

/// Headers travel in one frame, and a client that sends a larger one loses its connection.
#[tokio::test]
async fn headers_above_a_frame() {
    let place = Place::shared().await;
    let transport = place.transport("frame_max=8192").await;
    let with_header = |size| Message::to(QUEUE).header("h", "v".repeat(size)).payload("{}").unwrap();
    let batch = [message(QUEUE), with_header(9_000), with_header(7_000), message(QUEUE)];
    let outcomes = publish(&transport, &batch).await;
    let error = error_at(&outcomes, 1);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
    assert!(error.description().contains("frame_max"), "{error}");
    assert!([0, 2, 3].into_iter().all(|index| is_ok(&outcomes, index)), "{outcomes:?}");
    assert_eq!(place.take_all().await.len(), 3);
}

/// Names beyond what AMQP takes, and names that the broker takes for its own, harm nobody but their message.
#[tokio::test]
async fn texts_above_what_amqp_takes() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let batch = [
        Message::to(QUEUE).header("h".repeat(255), "v").payload("{}").unwrap(),
        Message::to(QUEUE).header("h".repeat(256), "v").payload("{}").unwrap(),
        Message::to("t".repeat(255)).payload("{}").unwrap(),
        message(QUEUE),
        Message::to(QUEUE).header("CC", "orders.elsewhere").payload("{}").unwrap(),
        Message::to(QUEUE).header("cc", "orders.elsewhere").payload("{}").unwrap(),
    ];
    let outcomes = publish(&transport, &batch).await;
    assert!([0, 3, 5].into_iter().all(|index| is_ok(&outcomes, index)), "{outcomes:?}");
    assert_eq!(error_at(&outcomes, 1).kind(), ErrorKind::Rejected);
    assert_eq!(error_at(&outcomes, 2).kind(), ErrorKind::Unroutable);
    assert_eq!(error_at(&outcomes, 4).kind(), ErrorKind::Rejected);
    assert!(error_at(&outcomes, 4).description().contains("`CC`"));
}

/// A queue that refuses what is beyond its length: a pause cures it, and those before it are in.
#[tokio::test]
async fn a_full_queue() {
    let place = Place::shared().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    place.queue("orders.bounded", arguments).await;
    let transport = place.transport("").await;
    let fill: Vec<_> = (0..5).map(|_| message("orders.bounded")).collect();
    all_ok(&publish(&transport, &fill).await);
    let outcomes = publish(&transport, &fill).await;
    all_failed(&outcomes, ErrorKind::Unavailable, Effect::NotApplied);
    let report = error_at(&outcomes, 0).report();
    assert!(report.contains("x-overflow") && report.contains("guest@127.0.0.1"), "{report}");
    // Others are not held up, also not in the same batch.
    let mixed =
        [message("orders.bounded"), message(QUEUE), message("orders.nowhere"), message("orders.bounded")];
    let outcomes = publish(&transport, &mixed).await;
    assert!(is_ok(&outcomes, 1), "{:?}", outcomes.outcome(1));
    let kinds = [0, 2, 3].map(|index| error_at(&outcomes, index).kind());
    assert_eq!(kinds, [ErrorKind::Unavailable, ErrorKind::Unroutable, ErrorKind::Unavailable]);
    let purge = lapin::options::QueuePurgeOptions::default();
    place.channel().await.queue_purge("orders.bounded".into(), purge).await.unwrap();
    all_ok(&publish(&transport, &fill).await);
}

/// A message above the broker's own limit makes it close the channel: alone it is blamed, among others nobody is.
#[tokio::test]
async fn a_message_above_the_limit_of_the_broker() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let transport = place.transport("").await;
    let large = Message::to(QUEUE).payload(vec![0; 100_000]).unwrap();
    let mut batch = messages(20, 100);
    batch[7] = large.clone();
    let outcomes = publish(&transport, &batch).await;
    let error = error_at(&outcomes, 7);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    for index in 0..batch.len() {
        if !is_ok(&outcomes, index) {
            assert_eq!(error_at(&outcomes, index).kind(), ErrorKind::Unavailable);
        }
    }
    let outcomes = publish(&transport, &[large]).await;
    let error = error_at(&outcomes, 0);
    assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.report());
    assert!(error.description().contains("transport.max_payload"), "{error}");
    batch.remove(7);
    all_ok(&publish(&transport, &batch).await);
}

/// An alarm of memory: publishers wait, so a publish ends with the confirm timeout, and with none when the alarm is known.
#[tokio::test]
async fn an_alarm_of_memory() {
    let (node, _turn) = own_node().await;
    let place = Place::on(node).await;
    let transport = place.transport("transport.confirm_timeout=1s").await;
    all_ok(&publish(&transport, &messages(1, 10)).await);
    let alarm = Alarm::raise(node).await;
    let batch = messages(20, 100);
    let first = publish(&transport, &batch).await;
    for index in 0..batch.len() {
        let error = error_at(&first, index);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        assert!(error.description().contains("alarm of memory"), "{error}");
    }
    let second = publish(&transport, &messages(5, 100)).await;
    all_failed(&second, ErrorKind::Unavailable, Effect::NotApplied);
    assert!(error_at(&second, 0).description().contains("alarm of memory"));
    let probe = transport.probe(Destination::ONLY).await.unwrap_err();
    assert_eq!(probe.kind(), ErrorKind::Unavailable);
    // Somebody who opens a transport now is let in, and told by the first publish.
    let late = place.transport("transport.confirm_timeout=1s").await;
    let outcomes = publish(&late, &messages(1, 10)).await;
    assert_eq!(error_at(&outcomes, 0).kind(), ErrorKind::Unavailable);
    drop(alarm);
    crate::support::until_it_answers(&transport).await;
    // What the broker held back arrives now, so the first of the batch may be there twice in the end.
    place.purge().await;
    all_ok(&publish(&transport, &batch).await);
    crate::support::until_it_answers(&late).await;
    all_ok(&publish(&late, &messages(1, 10)).await);
}

/// The broker's limit of memory is nothing while this lives.
struct Alarm(&'static RabbitMqNode);

impl Alarm {
    async fn raise(node: &'static RabbitMqNode) -> Self {
        let alarm = Self(node);
        control(node, &["set_vm_memory_high_watermark", "0"]).await;
        alarm
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.control(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    }
}

/// Permissions that are taken away while a relay runs.
#[tokio::test]
async fn permissions_that_are_taken_away() {
    let place = Place::shared().await;
    let (node, host) = (RabbitMqNode::shared().unwrap(), place.host.name());
    control(node, &["add_user", "writer", "s3cret"]).await;
    control(node, &["set_permissions", "--vhost", host, "writer", "", ".*", ""]).await;
    let url = place.url().replace("guest:guest@", "writer:s3cret@");
    let transport = crate::support::connect(&url).await;
    all_ok(&publish(&transport, &messages(3, 10)).await);
    control(node, &["set_permissions", "--vhost", host, "writer", "", "nothing", ""]).await;
    // The broker asks for permissions anew on a channel that is a few seconds old, or on a new one.
    let fresh = crate::support::connect(&url).await;
    let batch = messages(3, 10);
    let outcomes = publish(&fresh, &batch).await;
    for index in 0..batch.len() {
        let error = error_at(&outcomes, index);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{}", error.report());
        assert!(error.description().contains("permissions") && !error.report().contains("s3cret"));
    }
    place.purge().await;
    control(node, &["set_permissions", "--vhost", host, "writer", "", ".*", ""]).await;
    nothing_is_lost(&place, &fresh, &batch, &outcomes).await;
}

/// Permissions for topics: the message to the forbidden one is found, and does not stop the others for good.
#[tokio::test]
async fn a_topic_that_is_forbidden() {
    let place = Place::shared().await;
    let (node, host) = (RabbitMqNode::shared().unwrap(), place.host.name());
    place.exchange("orders", lapin::ExchangeKind::Topic).await;
    place.bind("orders", "#").await;
    control(node, &["add_user", "created-only", "s3cret"]).await;
    control(node, &["set_permissions", "--vhost", host, "created-only", "", ".*", ""]).await;
    control(
        node,
        &["set_topic_permissions", "--vhost", host, "created-only", "orders", "^orders.created$", ""],
    )
    .await;
    let url = place.url().replace("guest:guest@", "created-only:s3cret@");
    let transport = crate::support::connect(&format!("{url}?transport.exchange=orders")).await;
    let batch = [message(QUEUE), message("orders.secret"), message(QUEUE)];
    let outcomes = publish(&transport, &batch).await;
    assert_eq!(error_at(&outcomes, 1).kind(), ErrorKind::Unavailable);
    let outcomes = publish(&transport, &batch[1..2]).await;
    let error = error_at(&outcomes, 0);
    assert_eq!(error.kind(), ErrorKind::Unroutable, "{}", error.report());
    assert!(
        error.report().contains("orders.secret") && error.description().contains("set_topic_permissions")
    );
    all_ok(&publish(&transport, &batch[..1]).await);
}

/// A client that may have one channel: publishes and probes share it one after another.
#[tokio::test]
async fn a_single_channel() {
    let place = Place::shared().await;
    let transport = place.transport("channel_max=1").await;
    for _ in 0..3 {
        all_ok(&publish(&transport, &messages(10, 10)).await);
        transport.probe(Destination::ONLY).await.unwrap();
    }
}
