//! The producer's half: inside the caller's own transactions, and without them.

use crate::support::{SHOP, ask, client, config, message, server, settle_all};
use mongodb::bson::{Document, doc};
use pillarbox_core::{Content, Enqueue as _, ErrorKind, Limits, Message, Storage as _, TestClock, Verdict};
use pillarbox_mongodb::MongoStorage;

async fn outbox() -> MongoStorage {
    MongoStorage::connect(config(&TestClock::new())).await.unwrap()
}

#[tokio::test]
async fn a_session_without_a_transaction_is_refused() {
    let outbox = outbox().await;
    let mut session = client(server()).await.start_session().await.unwrap();
    for _ in 0..2 {
        let error = outbox.enqueue(&mut session, &[message(None)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains("start_transaction()"), "{error}");
    }
    // It can be used all the same.
    session.start_transaction().await.unwrap();
    outbox.enqueue(&mut session, &[message(None)]).await.unwrap();
    session.commit_transaction().await.unwrap();
    assert!(outbox.enqueue(&mut session, &[message(None)]).await.is_err());
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn business_data_and_messages_are_both_there_or_neither() {
    let outbox = outbox().await;
    let client = client(server()).await;
    let orders = client.database(SHOP).collection::<Document>(&format!("orders-of-{}", outbox.name()));
    for commit in [false, true] {
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        orders.insert_one(doc! { "_id": 1 }).session(&mut session).await.unwrap();
        outbox.enqueue(&mut session, &[message(Some("order-1"))]).await.unwrap();
        if commit {
            session.commit_transaction().await.unwrap();
        } else {
            session.abort_transaction().await.unwrap();
        }
        let order = orders.find_one(doc! { "_id": 1 }).await.unwrap();
        assert_eq!(order.is_some(), commit);
        assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), usize::from(commit));
    }
}

#[tokio::test]
async fn a_refused_message_leaves_the_transaction_as_it_was() {
    let config = config(&TestClock::new()).limits(Limits::with_max_payload(4).unwrap());
    let outbox = MongoStorage::connect(config).await.unwrap();
    let mut session = client(server()).await.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let large = Message::to("t").payload("12345").unwrap();
    let error = outbox.enqueue(&mut session, &[message(None), large]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("the limit is 4"), "{error}");
    outbox.enqueue(&mut session, &[message(None)]).await.unwrap();
    session.commit_transaction().await.unwrap();
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_document_without_its_place_is_refused_by_the_server() {
    let outbox = outbox().await;
    let messages = client(server()).await.database(SHOP);
    let messages = messages.collection::<Document>(&format!("{}.messages", outbox.name()));
    let seq = mongodb::bson::Timestamp { time: 0, increment: 0 };
    for wrong in [
        doc! { "topic": "t" },
        doc! { "lane": 4, "at": 0_i64, "seq": seq },
        doc! { "lane": 0, "at": "now", "seq": seq },
        doc! { "lane": 0, "at": 0_i64, "seq": 7 },
    ] {
        let error = messages.insert_one(wrong).await.unwrap_err();
        assert!(error.to_string().contains("121"), "{error}");
    }
}

#[tokio::test]
async fn messages_that_wait_in_the_aggregate_are_adopted_once() {
    let outbox = outbox().await;
    let client = client(server()).await;
    let orders = client.database(SHOP).collection::<Document>(&format!("aggregates-of-{}", outbox.name()));
    let first = message(Some("order-1"));
    let second = message(Some("order-1"));
    let embedded = [outbox.embedded(&first).unwrap(), outbox.embedded(&second).unwrap()];
    orders.insert_one(doc! { "_id": 1, "state": "created", "outbox": embedded.to_vec() }).await.unwrap();
    orders.insert_one(doc! { "_id": 2, "state": "created", "outbox": [] }).await.unwrap();
    // As if an earlier call had been cut off after its first step.
    let messages = client.database(SHOP).collection::<Document>(&format!("{}.messages", outbox.name()));
    let again = messages.insert_one(embedded[0].clone()).await;
    again.unwrap();
    assert_eq!(outbox.adopt(&orders, "outbox").await.unwrap(), 2);
    assert_eq!(outbox.adopt(&orders, "outbox").await.unwrap(), 0);
    let order = orders.find_one(doc! { "_id": 1 }).await.unwrap().unwrap();
    assert_eq!((order.get_str("state").unwrap(), order.get_array("outbox").unwrap().len()), ("created", 0));
    let claimed = outbox.claim(ask(10)).await.unwrap();
    let ids: Vec<_> = claimed
        .entries
        .iter()
        .map(|entry| match &entry.content {
            Content::Message(message) => message.id(),
            Content::Undecodable(_) => panic!("{entry:?}"),
        })
        .collect();
    assert_eq!(ids, [first.id(), second.id()]);
    settle_all(&outbox, &claimed, &Verdict::Published).await;

    orders.insert_one(doc! { "_id": 3, "outbox": [{ "_id": 1 }] }).await.unwrap();
    let error = outbox.adopt(&orders, "outbox").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("`outbox`"), "{error}");
}
