//! The wake-up: hints that work may be due.

use crate::storage::rule::{WAKEUP, ensure};
use crate::storage::world::World;
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use futures_util::future::{Either, select};
use pillarbox_core::{Hints, Storage as _};
use std::pin::pin;

/// How many claims a hint may take to arrive: far more than any takes, and the end of the case if none comes.
const PATIENCE: u32 = 5_000;

/// F17: a relay that waits hears of a commit.
///
/// # Errors
/// The violation.
pub async fn hint_arrives_after_a_commit<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut hints = subscribe(&world)?;
    ensure!(
        hinted(&world, &mut *hints, true).await?,
        WAKEUP,
        "a hint, while messages are committed",
        "none during {PATIENCE} claims"
    );
    Ok(())
}

/// F17: every relay hears for itself: the hint of one takes none from another.
///
/// # Errors
/// The violation.
pub async fn every_subscriber_is_hinted<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut subscribers = [subscribe(&world)?, subscribe(&world)?];
    for (number, hints) in subscribers.iter_mut().enumerate() {
        ensure!(
            hinted(&world, &mut **hints, true).await?,
            WAKEUP,
            "a hint for each subscriber",
            "none for number {number} during {PATIENCE} claims"
        );
    }
    Ok(())
}

/// F17: many hints count as one: after a hundred commits a relay that was away is woken at most a few times.
///
/// # Errors
/// The violation.
pub async fn many_hints_are_few<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut hints = subscribe(&world)?;
    // Listening from here on.
    hinted(&world, &mut *hints, true).await?;
    for _ in 0..100 {
        world.enqueue(&world.messages(1, None)).await?;
    }
    let mut woken = 0;
    while hinted(&world, &mut *hints, false).await? {
        woken += 1;
        ensure!(woken < 50, WAKEUP, "a hundred hints that nobody waited for count as few", "{woken} hints");
    }
    Ok(())
}

fn subscribe<S: TestStore>(world: &World<'_, S>) -> Result<Box<dyn Hints>, Violation> {
    let wakeup = world.storage.wakeup();
    let offered = wakeup.map(pillarbox_core::Wakeup::subscribe);
    offered.ok_or_else(|| Violation::Harness("the storage declares `wakeup` and offers none".into()))
}

/// Waits for a hint as long as a number of claims takes, while messages are committed if so asked. A subscription may
/// connect only when it is first waited for, so one commit is not enough.
async fn hinted<S: TestStore>(
    world: &World<'_, S>,
    hints: &mut dyn Hints,
    committing: bool,
) -> Result<bool, Violation> {
    let patience = pin!(async {
        for claim in 0..PATIENCE {
            if committing && claim % 50 == 0 {
                world.enqueue(&world.messages(1, None)).await?;
            }
            world.now().await?;
            yielded().await;
        }
        Ok::<_, Violation>(())
    });
    match select(hints.hinted(), patience).await {
        Either::Left(((), _)) => Ok(true),
        Either::Right((result, _)) => result.map(|()| false),
    }
}

/// Lets others of the same task go on, where a store answers without ever waiting.
async fn yielded() {
    let mut asked = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut asked, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
