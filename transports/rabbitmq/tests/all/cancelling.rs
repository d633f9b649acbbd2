//! Publishes that are dropped, at every await.

use crate::support::{Place, QUEUE, error_at, is_ok, message, publish};
use pillarbox_core::{ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_rabbitmq::RabbitMqTransport;
use pillarbox_testkit::fault::crash_after;

const LOST: &str = "orders.nobody-listens";

fn mixed(count: usize, is_lost: impl Fn(usize) -> bool) -> Vec<Message> {
    (0..count).map(|index| message(if is_lost(index) { LOST } else { QUEUE })).collect()
}

/// Publishes until a number of polls is reached. Whether it ended by then is told too.
async fn publish_for(transport: &RabbitMqTransport, batch: &[Message], polls: u32) -> (Outcomes, bool) {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    let ended = crash_after(transport.publish(batch, &mut outcomes), polls).await.is_some();
    (outcomes, ended)
}

/// What a dropped publish left behind is never told of the next one's messages, and what it wrote is true.
#[tokio::test]
async fn the_next_publish_has_its_own_answers() {
    let place = Place::shared().await;
    let transport = place.transport("").await;
    let mut ended = 0;
    for polls in 0..200 {
        // Those that come back are elsewhere in the next batch.
        let dropped = mixed(40, |index| index % 3 == 0);
        let (before, has_ended) = publish_for(&transport, &dropped, polls).await;
        let next = mixed(20, |index| index % 4 == 1);
        let after = publish(&transport, &next).await;
        for index in 0..next.len() {
            if index % 4 == 1 {
                assert_eq!(error_at(&after, index).kind(), ErrorKind::Unroutable, "after {polls} polls");
            } else {
                assert!(is_ok(&after, index), "after {polls} polls: {:?}", after.outcome(index));
            }
        }
        let arrived = place.arrivals().await;
        for (index, message) in dropped.iter().enumerate() {
            match before.outcome(index) {
                Some(Ok(())) => assert!(arrived.contains_key(&message.id().to_string())),
                Some(Err(error)) => assert_eq!((error.kind(), index % 3), (ErrorKind::Unroutable, 0)),
                None => assert!(!has_ended),
            }
        }
        ended += u32::from(has_ended);
        if ended == 3 {
            return;
        }
    }
    panic!("a publish of 40 messages takes more than 200 polls");
}

/// Dropped publishes leave neither connections nor channels behind.
#[tokio::test]
async fn nothing_is_left_behind() {
    let place = Place::shared().await;
    let proxy = place.proxy();
    let transport = place.behind(&proxy, "").await;
    for round in 0..100 {
        publish_for(&transport, &mixed(40, |index| index % 5 == 0), 1 + round % 7).await;
    }
    assert!(is_ok(&publish(&transport, &mixed(1, |_| false)).await, 0));
    crate::support::until("the other connections are closed", || proxy.open_connections() <= 1).await;
    let list = ["list_channels", "--vhost", place.host.name(), "name"];
    let channels = || place.host.node().control(&list).unwrap().lines().count();
    // One is the test's own.
    crate::support::until("the other channels are closed", || channels() <= 18).await;
    drop(transport);
    crate::support::until("the transport's connection is closed", || proxy.open_connections() == 0).await;
}
