//! The producer's half: what a transaction shows, when, and how it was given.

use crate::storage::rule::{ENQUEUE, KEY_ORDER, TERMINAL, ensure};
use crate::storage::world::{claimed_ids, id, ids, list, name};
use crate::storage::{OutboxSettings, Producer as _, StorageHarness, Trial, Violation};
use pillarbox_core::{Content, Limits, Message, MessageId, RepeatedIds, Storage as _, Text, Timestamp};
use std::time::Duration;

/// What was committed can be claimed at once.
///
/// # Errors
/// The violation.
pub async fn commit_is_visible<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = [world.message(None), world.message(Some("a"))];
    world.enqueue(&messages).await?;
    let claims = world.claim_everything(10).await?;
    let got = claimed_ids(&claims);
    ensure!(
        got.len() == 2,
        ENQUEUE,
        "both committed messages are handed out",
        "{}",
        list(got.into_iter().map(name))
    );
    Ok(())
}

/// What was rolled back is never claimed.
///
/// # Errors
/// The violation.
pub async fn rollback_is_invisible<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let gone = world.messages(3, Some("a"));
    let mut transaction = world.producer.begin().await?;
    world.producer.enqueue(&mut transaction, &gone).await?;
    world.producer.rollback(transaction).await?;
    let kept = world.messages(1, Some("a"));
    world.enqueue(&kept).await?;
    world.drains_exactly(&kept).await
}

/// What is not committed yet is not claimed, and blocks nobody.
///
/// # Errors
/// The violation.
pub async fn uncommitted_is_invisible<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let open = world.messages(2, None);
    let mut transaction = world.producer.begin().await?;
    world.producer.enqueue(&mut transaction, &open).await?;
    let claims = world.claim_everything(10).await?;
    ensure!(
        claims.is_empty(),
        ENQUEUE,
        "nothing is handed out before the commit",
        "{}",
        list(claimed_ids(&claims).into_iter().map(name))
    );
    world.producer.commit(transaction).await?;
    world.drains_exactly(&open).await
}

/// F11: a transaction that enqueued first and commits last, after the relay has passed, loses nothing.
///
/// # Errors
/// The violation.
pub async fn late_commit_is_not_skipped<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    for key in [None, Some("a")] {
        let (early, late) = (world.messages(2, key), world.messages(2, key));
        let mut slow = world.producer.begin().await?;
        world.producer.enqueue(&mut slow, &early).await?;
        world.enqueue(&late).await?;
        world.drains_exactly(&late).await?;
        world.producer.commit(slow).await?;
        world.drains_exactly(&early).await?;
    }
    Ok(())
}

/// Rule 5: messages of one key that one transaction enqueues keep their order, also over several calls.
///
/// # Errors
/// The violation.
pub async fn transaction_keeps_its_order<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(30, Some("a"));
    let mut transaction = world.producer.begin().await?;
    for part in messages.chunks(7) {
        world.producer.enqueue(&mut transaction, part).await?;
    }
    world.producer.commit(transaction).await?;
    let delivered = world.drain().await?;
    ensure!(
        delivered == ids(&messages),
        KEY_ORDER,
        "the order in which they were enqueued",
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

/// Two thousand messages in one transaction arrive, each once.
///
/// # Errors
/// The violation.
pub async fn large_transaction_arrives_whole<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(1_000, None);
    messages.extend(world.messages(1_000, Some("a")));
    world.enqueue(&messages).await?;
    world.drains_exactly(&messages).await
}

/// An enqueue of nothing does nothing.
///
/// # Errors
/// The violation.
pub async fn nothing_is_enqueued_by_an_empty_list<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&[]).await?;
    world.drains_exactly(&[]).await
}

/// One message over the outbox's limit is refused as `Rejected`, and none of its list is enqueued.
///
/// # Errors
/// The violation.
pub async fn refused_message_refuses_its_list<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let roomy = Limits::with_max_payload(Limits::HIGHEST_PAYLOAD)?;
    let large = Message::given(MessageId::from_bytes([9; 16]), Timestamp::EPOCH, "suite.topic")
        .limits(roomy)
        .payload(vec![b'x'; Limits::DEFAULT_PAYLOAD as usize + 1])
        .map_err(pillarbox_core::Error::from)?;
    let mut transaction = world.producer.begin().await?;
    let refused = world.producer.enqueue(&mut transaction, &[world.message(None), large]).await;
    let kind = refused.as_ref().err().and_then(|error| error.downcast_ref::<pillarbox_core::Error>());
    ensure!(
        kind.is_some_and(|error| error.kind() == pillarbox_core::ErrorKind::Rejected),
        ENQUEUE,
        "a payload of 1 MiB and 1 byte is refused with an error of the kind `Rejected`",
        "{refused:?}"
    );
    world.producer.commit(transaction).await?;
    world.drains_exactly(&[]).await
}

/// Rule 7, F36: a producer that did not learn whether its commit went through enqueues again; that never fails. The id is
/// ignored or delivered as a second copy, as the storage declares.
///
/// # Errors
/// The violation.
pub async fn enqueued_twice_never_fails<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        let message = world.message(key);
        let other = world.message(key);
        world.enqueue(std::slice::from_ref(&message)).await?;
        world.enqueue(&[message.clone(), other.clone()]).await?;
        let delivered = world.drain().await?;
        let copies = delivered.iter().filter(|id| **id == message.id()).count();
        let wanted = match world.storage.guarantees().repeated_ids {
            RepeatedIds::Ignored => 1,
            RepeatedIds::SecondCopy => 2,
        };
        ensure!(
            copies == wanted && delivered.contains(&other.id()),
            TERMINAL,
            format!("{wanted} deliveries of the repeated id, and the message beside it"),
            "{}",
            list(delivered.into_iter().map(name))
        );
        // A copy that comes after the first was delivered is a new message, or one that retention still knows.
        world.enqueue(std::slice::from_ref(&message)).await?;
        world.drain().await?;
    }
    Ok(())
}

/// Every field arrives as it was given: payloads that are empty, have zero bytes, are no text or have 1 MiB; headers;
/// content type; key; times.
///
/// # Errors
/// The violation.
pub async fn payload_roundtrip<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let soon = world.now().await?.before(Duration::from_secs(5));
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads =
        [vec![], vec![0], b"a\0b\0".to_vec(), vec![0xff, 0xfe, 0x80], every_byte, vec![7; 1024 * 1024]];
    let mut messages = Vec::new();
    for (number, payload) in (1_u8..).zip(payloads) {
        let build = || {
            Message::given(MessageId::from_bytes([number; 16]), Timestamp::from_micros(1_234_567), "a.b/ü#1")
        };
        let rich = build()
            .key("ключ 🔑 {tag}")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .header("empty", "")
            .header("ünïcode", "✓ \"quoted\" \\ 'single'")
            .content_type("application/json; charset=utf-8")
            .deliver_at(soon)
            .payload(payload.clone());
        messages.push(rich.map_err(pillarbox_core::Error::from)?);
        let mut plain = [number; 16];
        plain[0] = 0xff;
        let plain = Message::given(MessageId::from_bytes(plain), Timestamp::EPOCH, "t").payload(payload);
        messages.push(plain.map_err(pillarbox_core::Error::from)?);
    }
    let largest =
        Message::given(MessageId::from_bytes([0xaa; 16]), Timestamp::EPOCH, "x".repeat(Limits::TOPIC))
            .key("k".repeat(Limits::KEY))
            .headers((0..Limits::HEADERS).map(|n| (format!("h{n:02}"), "v".repeat(200))).collect())
            .content_type("c".repeat(Limits::CONTENT_TYPE))
            .payload("");
    messages.push(largest.map_err(pillarbox_core::Error::from)?);
    world.enqueue(&messages).await?;
    let mut missing: Vec<_> = messages.iter().collect();
    for _ in 0..=messages.len() {
        let claimed = world.claim(100).await?;
        for entry in &claimed.entries {
            let Content::Message(message) = &entry.content else {
                ensure!(false, ENQUEUE, "what was enqueued is a message", "{:?}", entry.content);
                continue;
            };
            let Some(at) = missing.iter().position(|sent| sent.id() == message.id()) else {
                ensure!(false, ENQUEUE, "only what was enqueued, once", "{message:?}");
                continue;
            };
            let sent = missing.remove(at);
            ensure!(sent == message, ENQUEUE, format!("{}", shown(sent)), "{}", shown(message));
        }
        world.settle_all(&claimed, &pillarbox_core::Verdict::Published).await?;
    }
    ensure!(
        missing.is_empty(),
        ENQUEUE,
        "every message arrives",
        "{} did not",
        list(missing.iter().map(|message| message.id().to_string()))
    );
    Ok(())
}

/// Entries say what was charged: nothing, for a new message.
///
/// # Errors
/// The violation.
pub async fn new_message_has_no_charges<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(3, None)).await?;
    for claimed in world.claim_everything(10).await? {
        for entry in &claimed.entries {
            ensure!(
                entry.attempts == 0 && entry.strikes == 0,
                ENQUEUE,
                "no attempts and no strikes",
                "{:?}: {} attempts, {} strikes",
                id(entry).map(name),
                entry.attempts,
                entry.strikes
            );
        }
    }
    Ok(())
}

fn shown(message: &Message) -> String {
    let texts: Vec<(&Text, &Text)> = message.headers().iter().collect();
    let payload = message.payload();
    format!("{message:?}, headers {texts:?}, payload begins with {:?}", &payload[..payload.len().min(16)])
}
