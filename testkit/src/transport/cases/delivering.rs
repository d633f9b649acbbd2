//! What is published arrives, as it was given.

use crate::transport::violation::{CONFIRMED, DESTINATIONS, PER_MESSAGE, UNCHANGED, ensure};
use crate::transport::world::{World, name};
use crate::transport::{Received, TransportHarness, Trial, Violation};
use pillarbox_core::{Limits, Message, Transport as _};

/// F28: an outcome is `Ok` only when the message is with the broker; each arrives once.
///
/// # Errors
/// The violation.
pub async fn ok_means_received<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let few = world.messages(10)?;
    world.publish_all(&few, CONFIRMED).await?;
    world.arrived_once(&few, CONFIRMED).await?;
    let many = world.messages(500)?;
    world.publish_all(&many, CONFIRMED).await?;
    world.arrived_once(&many, CONFIRMED).await
}

/// An empty batch ends at once, publishes nothing and does no harm.
///
/// # Errors
/// The violation.
pub async fn empty_batch<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let outcomes = world.publish(&[]).await;
    ensure!(outcomes.is_empty(), PER_MESSAGE, "no outcomes", "{outcomes:?}");
    let received = world.received().await?;
    ensure!(received.is_empty(), PER_MESSAGE, "nothing to arrive", "{} messages", received.len());
    let messages = world.messages(1)?;
    world.publish_all(&messages, PER_MESSAGE).await?;
    world.arrived_once(&messages, PER_MESSAGE).await
}

/// Payloads of any bytes and size, keys, content types and the largest headers arrive unchanged.
///
/// # Errors
/// The violation.
pub async fn payload_and_headers_roundtrip<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let messages = strange_messages(&world)?;
    world.publish_all(&messages, UNCHANGED).await?;
    let received = world.received().await?;
    for message in &messages {
        let expected = Received::from(message);
        let seen = received.iter().find(|received| received.id == message.id());
        ensure!(
            seen == Some(&expected),
            UNCHANGED,
            format!("{}: {}", name(message.id()), brief(Some(&expected))),
            "{}",
            brief(seen)
        );
    }
    Ok(())
}

fn strange_messages<H: TransportHarness>(world: &World<'_, H>) -> Result<Vec<Message>, Violation> {
    let most = (0..Limits::HEADERS).fold(world.message(), |message, number| {
        message.header(format!("header-{number:02}"), "v".repeat(Limits::HEADERS_SIZE / Limits::HEADERS - 9))
    });
    Ok(vec![
        world.message().payload("")?,
        world.message().payload(vec![0])?,
        world.message().payload("a\0b\0")?,
        world.message().payload(vec![0xff, 0xfe, 0x80, 0xc0])?,
        world.message().payload((0..=255).collect::<Vec<u8>>())?,
        world.message().payload("line\nbreak\r\n\ttab \u{1f4ee} \u{e9}")?,
        world.message().payload(vec![7; 300_000])?,
        world.message().content_type("application/json; charset=utf-8").payload("{}")?,
        world.message().key("order-1").payload("with a key")?,
        world.message().key("k".repeat(Limits::KEY)).payload("with the longest key")?,
        world.message().key("schl\u{fc}ssel \u{1f511}").payload("with a key in Unicode")?,
        world
            .message()
            .header("traceparent", "00-0af7-b7ad-01")
            .header("empty", "")
            .payload("with headers")?,
        world.message().header("na\u{ef}ve", "\u{1f4ee} = \"x\"; a, b").payload("with Unicode in headers")?,
        most.payload("with the most headers")?,
    ])
}

/// A received message in a line of bounded length.
fn brief(message: Option<&Received>) -> String {
    let Some(message) = message else { return "nothing".to_owned() };
    let text = format!("{message:?}");
    let end = (0..=400.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{} bytes of payload, {}", message.payload.len(), &text[..end])
}

/// A message that is sent again arrives with the same id: consumers deduplicate by it.
///
/// # Errors
/// The violation.
pub async fn id_travels<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let messages = world.messages(3)?;
    world.publish_all(&messages, CONFIRMED).await?;
    world.publish_all(&messages[1..2], CONFIRMED).await?;
    let received = world.received().await?;
    for message in &messages {
        let seen = received.iter().find(|received| received.id == message.id());
        ensure!(
            seen == Some(&Received::from(message)),
            UNCHANGED,
            format!("{} to arrive under its id", name(message.id())),
            "{}",
            brief(seen)
        );
    }
    let known = |received: &Received| messages.iter().any(|message| message.id() == received.id);
    let strange = received.iter().find(|received| !known(received));
    ensure!(
        strange.is_none(),
        UNCHANGED,
        "a message that is sent again to arrive with the id that it had before",
        "a message with the id {:?}",
        strange.map(|received| received.id)
    );
    Ok(())
}

/// Every message's destination is among those that the transport lists.
///
/// # Errors
/// The violation.
pub async fn every_destination_is_listed<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let listed = world.transport.destinations();
    for message in world.messages(3)? {
        let destination = world.transport.destination(&message);
        ensure!(listed.contains(&destination), DESTINATIONS, format!("one of {listed:?}"), "{destination:?}");
    }
    Ok(())
}
