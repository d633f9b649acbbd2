//! Rule 1: what a claim hands out.

use crate::storage::rule::{ATOMIC_CLAIM, ensure};
use crate::storage::world::{claimed_ids, list, name};
use crate::storage::{OutboxSettings, StorageHarness, Trial, Violation};
use std::collections::HashSet;

/// Rules 1 and 5, F14: claims that live side by side never cover one message, and together they cover all.
///
/// # Errors
/// The violation.
pub async fn claims_are_exclusive<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(20, None);
    messages.extend(world.messages(5, Some("a")));
    world.enqueue(&messages).await?;
    let other = world.connect().await?;
    let mut seen = HashSet::new();
    loop {
        let first = world.claim(4).await?;
        let second = world.claim_by(&other, world.ask(4)).await?;
        for id in claimed_ids([&first, &second]) {
            ensure!(
                seen.insert(id),
                ATOMIC_CLAIM,
                "a message of a live claim is in no other",
                "{} was handed out twice",
                name(id)
            );
        }
        if first.runs.is_empty() && second.runs.is_empty() {
            break;
        }
    }
    world.advance(crate::storage::world::PAST_LEASE).await?;
    world.drains_exactly(&messages).await
}

/// Rule 1: a claim hands out at most as many messages as it asks for, and repeated claims get everything.
///
/// # Errors
/// The violation.
pub async fn limit_is_respected<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(10, None);
    world.enqueue(&messages).await?;
    // Every claim is checked against its limit as it is made.
    let claims = world.claim_everything(3).await?;
    let got = claimed_ids(&claims);
    ensure!(
        got.len() == messages.len(),
        ATOMIC_CLAIM,
        "claims of 3 hand out all 10 messages",
        "{}",
        list(got.into_iter().map(name))
    );
    Ok(())
}

/// Rule 1: a claim of nothing hands out nothing and holds nothing, yet tells the store's time.
///
/// # Errors
/// The violation.
pub async fn zero_limit<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    let nothing = world.claim(0).await?;
    ensure!(nothing.runs.is_empty(), ATOMIC_CLAIM, "no runs", "{:?}", nothing.runs);
    world.drains_exactly(&messages).await
}
