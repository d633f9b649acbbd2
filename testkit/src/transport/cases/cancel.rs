//! Futures that are dropped, as when a relay cuts a publish off or dies.

use crate::transport::violation::{CANCEL, PROBE, ensure};
use crate::transport::world::{error_at, polled};
use crate::transport::{TransportHarness, Trial, Violation};
use pillarbox_core::{Destination, ErrorKind, Transport as _};
use std::pin::pin;

/// How often a future is polled at most before it is dropped.
const POLLS: u32 = 64;

/// A publish that is dropped at any await keeps what was confirmed, and the next one on the same handle gets its own outcomes.
///
/// # Errors
/// The violation.
pub async fn cancel_at_every_await_then_reuse<H: TransportHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world().await?;
    let unroutable = trial.abilities().unroutable;
    for polls in 0..POLLS {
        let mut dropped = world.messages(6)?;
        if unroutable {
            // Its failure must not be told of a later message.
            dropped[2] = world.unroutable().await?;
        }
        let (outcomes, ended) = world.publish_for(&dropped, polls).await;
        let mut next = world.messages(4)?;
        if unroutable {
            next[1] = world.unroutable().await?;
        }
        let after = world.publish(&next).await;
        for index in 0..next.len() {
            let (outcome, expected) =
                (after.outcome(index), if unroutable && index == 1 { "`Unroutable`" } else { "`Ok`" });
            let kind = error_at(&after, index).map(pillarbox_core::Error::kind);
            let as_expected = match expected {
                "`Ok`" => matches!(outcome, Some(Ok(()))),
                _ => kind == Some(ErrorKind::Unroutable),
            };
            ensure!(
                as_expected,
                CANCEL,
                format!("{expected} for message {index} of the publish after the dropped one"),
                "{outcome:?}"
            );
        }
        world.confirmed_have_arrived(&dropped, &outcomes).await?;
        world.confirmed_have_arrived(&next, &after).await?;
        if ended {
            return Ok(());
        }
    }
    Ok(())
}

/// A probe that is dropped at any await changes nothing, and no probe publishes anything.
///
/// # Errors
/// The violation.
pub async fn dropped_probe_has_no_effect<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    for polls in 0..POLLS {
        let received = world.received().await?.len();
        let probe = polled(pin!(world.transport.probe(Destination::ONLY)), polls).await;
        world.note(format!("a probe was dropped after {polls} polls: {probe:?}"));
        ensure!(!matches!(probe, Some(Err(_))), PROBE, "the broker to be there", "{probe:?}");
        let messages = world.messages(2)?;
        world.publish_all(&messages, CANCEL).await?;
        world.arrived_once(&messages, CANCEL).await?;
        let more = world.received().await?.len() - received;
        ensure!(more == 2, PROBE, "nothing to arrive but two messages", "{more} messages arrived");
        if probe.is_some() {
            return Ok(());
        }
    }
    Ok(())
}
