//! What an application's own test is told about the messages that a transaction left behind.

use futures_executor::block_on;
use pillarbox_core::{Message, Storage, Timestamp};
use pillarbox_memory::MemoryStorage;
use pillarbox_testkit::assertions::{Enqueued, Expected};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn order(number: u32) -> Message {
    let message = Message::to("orders.created").key("order-1").header("tenant", "north");
    message.payload(format!("{{\"number\":{number}}}")).unwrap()
}

fn after(messages: &[Message]) -> Enqueued {
    let storage = MemoryStorage::new();
    let mut transaction = storage.transaction();
    transaction.append(messages).unwrap();
    transaction.commit();
    block_on(Enqueued::of(&storage)).unwrap()
}

fn complaint(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion holds");
    *panic.downcast::<String>().expect("a panic with a text")
}

#[test]
fn a_commit_leaves_its_messages_and_a_rollback_none() {
    let storage = MemoryStorage::new();
    let mut transaction = storage.transaction();
    transaction.append(&[order(1)]).unwrap();
    transaction.rollback();
    block_on(Enqueued::of(&storage)).unwrap().assert_nothing();

    let enqueued = after(&[order(1), order(2)]);
    assert_eq!(enqueued.messages().len(), 2);
    let first = Expected::topic("orders.created").key("order-1").header("tenant", "north");
    enqueued.assert_contains(&first.payload("{\"number\":2}"));
}

#[test]
fn scheduled_messages_count_too_and_more_than_a_page_is_read() {
    let time = Timestamp::from_millis(9_000_000_000_000);
    let mut messages: Vec<_> = (0..2_500).map(order).collect();
    messages.push(Message::to("reminders").deliver_at(time).payload("").unwrap());
    let enqueued = after(&messages);
    assert_eq!(enqueued.messages().len(), 2_501);
    enqueued.assert_contains(&Expected::topic("reminders").no_key().deliver_at(time));
}

#[test]
fn reading_takes_nothing_away() {
    let storage = MemoryStorage::new();
    storage.enqueue_alone(&[order(1)]).unwrap();
    for _ in 0..2 {
        block_on(Enqueued::of(&storage)).unwrap().assert_only(&[Expected::topic("orders.created")]);
    }
    let stats = block_on(storage.admin().unwrap().stats()).unwrap();
    assert_eq!((stats.pending, stats.claimed), (1, 0));
}

#[test]
fn a_missing_message_is_compared_with_what_is_there() {
    let wanted = Expected::topic("orders.created").key("order-2").header("tenant", "south").payload("{}");
    let text = complaint(|| drop(after(&[order(1)]).assert_contains(&wanted).clone()));
    for part in ["\"order-2\"", "the key is \"order-1\"", "the header \"tenant\" is \"north\"", "number"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let text = complaint(|| drop(after(&[]).assert_contains(&wanted).clone()));
    assert!(text.contains("there is nothing"), "{text}");
}

#[test]
fn one_too_many_and_another_order_within_a_key_are_told() {
    let number = |number: u32| Expected::topic("orders.created").payload(format!("{{\"number\":{number}}}"));
    let enqueued = after(&[order(1), order(2), Message::to("audit").payload("a").unwrap()]);
    enqueued.assert_only(&[Expected::topic("audit"), number(1), number(2)]);
    let text = complaint(|| enqueued.assert_only(&[number(1), number(2)]));
    assert!(text.contains("not expected") && text.contains("audit"), "{text}");
    let text = complaint(|| enqueued.assert_only(&[number(2), number(1), Expected::topic("audit")]));
    assert!(text.contains("comes before"), "{text}");
    let text = complaint(|| enqueued.assert_nothing());
    assert_eq!(text.lines().count(), 4, "{text}");
}
