//! One outcome per message, and what each kind of error means.

use crate::transport::violation::{CONFIRMED, EFFECT, KINDS, PER_MESSAGE, PROBE, ensure};
use crate::transport::world::{World, complete, error_at, is_not_applied, name, room_for, times};
use crate::transport::{TransportHarness, Trial, Violation};
use futures_util::future::join3;
use pillarbox_core::{Destination, ErrorKind, Message, Outcomes, Transport as _};

/// One message in the middle that leads nowhere: the others arrive, and it alone fails.
///
/// # Errors
/// The violation.
pub async fn outcomes_are_per_message<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let (batch, bad) = mixed(&world, 7, |index| index == 3).await?;
    let outcomes = world.publish(&batch).await;
    exactly(&world, &batch, &bad, &outcomes).await
}

/// F22: among many, every failure is told of the message that failed, over and over: no client's guess by order suffices.
///
/// # Errors
/// The violation.
pub async fn outcomes_are_per_message_in_a_large_batch<H: TransportHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world().await?;
    for every in [3, 7, 50, 299] {
        let (batch, bad) = mixed(&world, 300, |index| index % every == every - 1).await?;
        let outcomes = world.publish(&batch).await;
        exactly(&world, &batch, &bad, &outcomes).await?;
    }
    Ok(())
}

/// Several publishes at once on one handle, as a relay has them: each gets its own outcomes.
///
/// # Errors
/// The violation.
pub async fn publishes_side_by_side_keep_their_outcomes<H: TransportHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world().await?;
    for _ in 0..5 {
        let some = |index: usize| trial.abilities().unroutable && index % 9 == 4;
        let (first, first_bad) = mixed(&world, 60, some).await?;
        let (second, second_bad) = mixed(&world, 60, |_| false).await?;
        let (third, third_bad) = mixed(&world, 20, |index| some(index + 1)).await?;
        let mut rooms = (room_for(&first), room_for(&second), room_for(&third));
        join3(
            world.transport.publish(&first, &mut rooms.0),
            world.transport.publish(&second, &mut rooms.1),
            world.transport.publish(&third, &mut rooms.2),
        )
        .await;
        world.note("published three batches side by side");
        exactly(&world, &first, &first_bad, &rooms.0).await?;
        exactly(&world, &second, &second_bad, &rooms.1).await?;
        exactly(&world, &third, &third_bad, &rooms.2).await?;
    }
    Ok(())
}

/// F22: a message without a route is `Unroutable`, again and again, harms nobody, and the broker still counts as there.
///
/// # Errors
/// The violation.
pub async fn unroutable_is_unroutable<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    for _ in 0..3 {
        let (batch, bad) = mixed(&world, 1, |_| true).await?;
        let outcomes = world.publish(&batch).await;
        exactly(&world, &batch, &bad, &outcomes).await?;
        let probe = world.transport.probe(Destination::ONLY).await;
        ensure!(probe.is_ok(), PROBE, "the broker to be there", "{probe:?}");
        let messages = world.messages(2)?;
        world.publish_all(&messages, PER_MESSAGE).await?;
        world.arrived_once(&messages, PER_MESSAGE).await?;
    }
    Ok(())
}

/// A payload above the limit is `Rejected` for good, at the limit it is not, and its neighbours arrive.
///
/// # Errors
/// The violation.
pub async fn oversize_is_rejected<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let mut batch = world.messages(5)?;
    let limit = world.transport.guarantees(world.transport.destination(&batch[0])).max_payload as usize;
    batch[1] = world.message().payload(vec![b'x'; limit])?;
    batch[3] = world.message().payload(vec![b'x'; limit + 1])?;
    let outcomes = world.publish(&batch).await;
    let kind = error_at(&outcomes, 3).map(pillarbox_core::Error::kind);
    ensure!(
        kind == Some(ErrorKind::Rejected),
        KINDS,
        format!("`Rejected` for a payload of {} bytes, above the limit of {limit}", limit + 1),
        "{:?}",
        outcomes.outcome(3)
    );
    for index in [0, 1, 2, 4] {
        let outcome = outcomes.outcome(index);
        ensure!(
            matches!(outcome, Some(Ok(()))),
            PER_MESSAGE,
            "`Ok` for the messages within the limit",
            "{outcome:?}"
        );
    }
    let rejected = batch.remove(3);
    world.arrived_once(&batch, CONFIRMED).await?;
    let arrived = times(&world.received().await?, &rejected);
    ensure!(arrived == 0, KINDS, "what was rejected not to arrive", "it arrived {arrived} times");
    Ok(())
}

/// A batch where those that `is_bad` chooses lead nowhere.
async fn mixed<H: TransportHarness>(
    world: &World<'_, H>,
    count: usize,
    is_bad: impl Fn(usize) -> bool,
) -> Result<(Vec<Message>, Vec<bool>), Violation> {
    let bad: Vec<_> = (0..count).map(is_bad).collect();
    let mut batch = Vec::with_capacity(count);
    for &bad in &bad {
        batch.push(if bad { world.unroutable().await? } else { world.message().payload("x")? });
    }
    Ok((batch, bad))
}

/// The bad ones are `Unroutable` and did not arrive, the others are `Ok` and did, once.
async fn exactly<H: TransportHarness>(
    world: &World<'_, H>,
    batch: &[Message],
    bad: &[bool],
    outcomes: &Outcomes,
) -> Result<(), Violation> {
    complete(batch, outcomes)?;
    let received = world.received().await?;
    for (index, message) in batch.iter().enumerate() {
        let (outcome, name) = (outcomes.outcome(index), name(message.id()));
        let arrived = times(&received, message);
        if bad[index] {
            let kind = error_at(outcomes, index).map(pillarbox_core::Error::kind);
            ensure!(
                kind == Some(ErrorKind::Unroutable),
                KINDS,
                format!("`Unroutable` for {name}, whose topic leads nowhere"),
                "{outcome:?}"
            );
            ensure!(
                arrived == 0 || !is_not_applied(outcomes, index),
                EFFECT,
                format!("{name} not to arrive"),
                "it arrived {arrived} times"
            );
        } else {
            ensure!(
                matches!(outcome, Some(Ok(()))),
                PER_MESSAGE,
                format!("`Ok` for {name}, whose neighbours lead nowhere"),
                "{outcome:?}"
            );
            ensure!(arrived == 1, CONFIRMED, format!("{name} to arrive once"), "it arrived {arrived} times");
        }
    }
    Ok(())
}
