//! The broker goes away and comes back.

use crate::transport::violation::{CONFIRMED, EFFECT, KINDS, PER_MESSAGE, PROBE, RECOVERY, ensure};
use crate::transport::world::{World, complete, error_at, is_not_applied, name, polled, room_for, times};
use crate::transport::{TransportHarness, Trial, Violation};
use pillarbox_core::{Destination, ErrorKind, Message, Outcomes, Transport as _};
use std::pin::pin;

/// After how many polls of a publish the broker goes away.
const POLLS: [u32; 8] = [1, 2, 3, 5, 8, 13, 34, 89];

/// While the broker is away every message is `Unavailable`; afterwards the same handle works.
///
/// # Errors
/// The violation.
pub async fn broker_gone_before_the_batch<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let messages = world.messages(20)?;
    world.stop().await?;
    for _ in 0..2 {
        let outcomes = world.publish(&messages).await;
        complete(&messages, &outcomes)?;
        for index in 0..messages.len() {
            let kind = error_at(&outcomes, index).map(pillarbox_core::Error::kind);
            ensure!(
                kind == Some(ErrorKind::Unavailable),
                KINDS,
                "`Unavailable` for every message while the broker is away",
                "{:?}",
                outcomes.outcome(index)
            );
        }
    }
    world.start().await?;
    world.publish_all(&messages, RECOVERY).await?;
    world.confirmed_have_arrived(&messages, &ok_for_all(&messages)).await
}

/// F28, F33: the broker goes away in the middle of a batch: what was confirmed has arrived, the rest is `Unavailable`, and is sent
/// again afterwards on the same handle.
///
/// # Errors
/// The violation.
pub async fn broker_gone_during_the_batch<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in POLLS {
        let world = trial.world().await?;
        let batch = world.messages(200)?;
        let outcomes = interrupted(&world, &batch, polls).await?;
        complete(&batch, &outcomes)?;
        let mut rest = Vec::new();
        for (index, message) in batch.iter().enumerate() {
            let Some(error) = error_at(&outcomes, index) else { continue };
            ensure!(
                error.kind() == ErrorKind::Unavailable,
                KINDS,
                format!("`Unavailable` for {}, since the broker went away", name(message.id())),
                "{error:?}"
            );
            rest.push(message.clone());
        }
        world.start().await?;
        world.publish_all(&rest, RECOVERY).await?;
        world.confirmed_have_arrived(&batch, &ok_for_all(&batch)).await?;
    }
    Ok(())
}

/// What was confirmed before the broker went away is there when it comes back, and the next batch needs no help.
///
/// # Errors
/// The violation.
pub async fn broker_gone_after_the_batch<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let before = world.messages(20)?;
    world.publish_all(&before, CONFIRMED).await?;
    world.stop().await?;
    world.start().await?;
    world.confirmed_have_arrived(&before, &ok_for_all(&before)).await?;
    let after = world.messages(20)?;
    world.publish_all(&after, RECOVERY).await?;
    world.confirmed_have_arrived(&after, &ok_for_all(&after)).await
}

/// What an outage leaves as `NotApplied` has not arrived, also not later: sent again, it arrives once.
///
/// # Errors
/// The violation.
pub async fn not_applied_means_not_received<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in POLLS {
        let world = trial.world().await?;
        let batch = world.messages(200)?;
        let outcomes = interrupted(&world, &batch, polls).await?;
        world.start().await?;
        let refused = |index: &usize| is_not_applied(&outcomes, *index);
        let refused: Vec<_> = (0..batch.len()).filter(refused).map(|index| batch[index].clone()).collect();
        // What is on its way to the broker comes before this.
        world.publish_all(&world.messages(1)?, RECOVERY).await?;
        let received = world.received().await?;
        for message in &refused {
            let arrived = times(&received, message);
            ensure!(
                arrived == 0,
                EFFECT,
                format!("{}, whose error says `NotApplied`, not to arrive", name(message.id())),
                "it arrived {arrived} times"
            );
        }
        world.publish_all(&refused, RECOVERY).await?;
        world.arrived_once(&refused, EFFECT).await?;
    }
    Ok(())
}

/// A probe succeeds while the broker is there, is `Unavailable` while it is away, and succeeds again by itself.
///
/// # Errors
/// The violation.
pub async fn probe_tells_whether_it_is_there<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    for _ in 0..2 {
        let there = world.transport.probe(Destination::ONLY).await;
        ensure!(there.is_ok(), PROBE, "success while the broker is there", "{there:?}");
        world.stop().await?;
        for _ in 0..2 {
            let away = world.transport.probe(Destination::ONLY).await;
            let kind = away.as_ref().err().map(pillarbox_core::Error::kind);
            ensure!(
                kind == Some(ErrorKind::Unavailable),
                PROBE,
                "`Unavailable` while the broker is away",
                "{away:?}"
            );
        }
        world.start().await?;
        let received = world.received().await?;
        ensure!(received.is_empty(), PROBE, "nothing to arrive", "{} messages", received.len());
    }
    Ok(())
}

/// The outcomes of a publish during which the broker goes away.
async fn interrupted<H: TransportHarness>(
    world: &World<'_, H>,
    batch: &[Message],
    polls: u32,
) -> Result<Outcomes, Violation> {
    let mut outcomes = room_for(batch);
    {
        let mut publish = pin!(world.transport.publish(batch, &mut outcomes));
        let ended = polled(publish.as_mut(), polls).await.is_some();
        world.stop().await?;
        world.note(format!("… {polls} polls after a publish of {} had begun", batch.len()));
        if !ended {
            publish.await;
        }
    }
    let failed = (0..batch.len()).filter(|index| error_at(&outcomes, *index).is_some()).count();
    world.note(format!("the publish ended: {failed} of {} failed", batch.len()));
    ensure!(
        outcomes.is_complete(),
        PER_MESSAGE,
        "an outcome for every message when the publish has ended",
        "some are missing"
    );
    Ok(outcomes)
}

fn ok_for_all(batch: &[Message]) -> Outcomes {
    let mut outcomes = room_for(batch);
    outcomes.fill(|| Ok(()));
    outcomes
}
