//! The producer's half: what a transaction shows, and when.

use crate::storage::rule::{ENQUEUE, ensure};
use crate::storage::world::{claimed_ids, list, name};
use crate::storage::{OutboxSettings, Producer as _, StorageHarness, Trial, Violation};

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
