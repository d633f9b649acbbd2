//! Rules 3 and 10: tokens.

use crate::storage::rule::{CANCEL, FENCING, ensure};
use crate::storage::world::{PAST_LEASE, claimed_ids, holds, release, retry, settlements, tokens};
use crate::storage::{OutboxSettings, StorageHarness, Trial, Violation};
use pillarbox_core::{Outcome, Settlements, Storage as _, Verdict};
use std::time::Duration;

/// Rule 3, F3 and F4: a holder that comes back after its lease, when another has taken its message, changes nothing,
/// whichever way it settles.
///
/// # Errors
/// The violation.
pub async fn stale_settle_is_fenced<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let ways = [Verdict::Published, retry(Duration::from_secs(5)), release(), crate::storage::world::bury()];
    for way in ways {
        let world = trial.world(&OutboxSettings::default()).await?;
        // Two, so that what is left of the run after the strike is no suspect yet.
        let messages = world.messages(2, Some("a"));
        world.enqueue(&messages).await?;
        let other = world.connect().await?;
        let first = world.claim(2).await?;
        world.advance(PAST_LEASE).await?;
        let second = world.take_over(&other, &first).await?;
        let taken = claimed_ids([&second]);
        let mut stale = Settlements::new();
        for run in first.runs.iter().filter(|run| taken.iter().any(|id| holds(&first, run, *id))) {
            stale.verdicts(run.token, vec![way.clone(); run.len as usize]);
        }
        for answer in world.settle(&stale).await? {
            ensure!(
                answer.outcome == Outcome::Fenced,
                FENCING,
                format!("{way:?} with a token that another claim has overtaken is `Fenced`"),
                "{:?}",
                answer.outcome
            );
        }
        for answer in world.settle_by(&other, &settlements(&second, |_| Verdict::Published)).await? {
            ensure!(
                answer.outcome == Outcome::Applied,
                FENCING,
                format!("the later holder is not affected by the {way:?} of the earlier one"),
                "{:?}",
                answer.outcome
            );
        }
        let mut rest = messages.clone();
        rest.retain(|message| !taken.contains(&message.id()));
        world.drains_exactly(&rest).await?;
    }
    Ok(())
}

/// Rule 3: expiry alone changes nothing. A lease that ran out and that nobody has taken can still be settled.
///
/// # Errors
/// The violation.
pub async fn expired_but_untaken_claim_still_settles<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(1, Some("a"));
    world.enqueue(&messages).await?;
    let claimed = world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    for answer in world.settle_all(&claimed, &Verdict::Published).await? {
        ensure!(
            answer.outcome == Outcome::Applied,
            FENCING,
            "`Applied`, since nobody has taken the message since",
            "{:?}",
            answer.outcome
        );
    }
    world.drains_exactly(&[]).await
}

/// Rule 10, F35: a claim whose answer was lost is repeated with its nonce and gets the same runs, uncharged.
///
/// # Errors
/// The violation.
pub async fn claim_repeated_with_its_nonce_answers_the_same_runs<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(4, None);
    messages.extend(world.messages(4, Some("a")));
    world.enqueue(&messages).await?;
    let ask = world.ask(100);
    let first = world.claim_by(&world.storage, ask).await?;
    let again = world.claim_by(&world.storage, ask).await?;
    let (mut before, mut after) = (tokens(&first), tokens(&again));
    before.sort_unstable();
    after.sort_unstable();
    ensure!(before == after, CANCEL, format!("the same tokens, {before:?}"), "{after:?}");
    let (mut before, mut after) = (claimed_ids([&first]), claimed_ids([&again]));
    before.sort_unstable();
    after.sort_unstable();
    ensure!(before == after, CANCEL, "the same messages", "{after:?} instead of {before:?}");
    let charged = again.entries.iter().filter(|entry| entry.attempts + entry.strikes > 0).count();
    ensure!(charged == 0, CANCEL, "no attempt and no strike", "{charged} entries were charged");
    for answer in world.storage.settle(&settlements(&again, |_| Verdict::Published)).await? {
        ensure!(
            answer.outcome == Outcome::Applied,
            CANCEL,
            "the runs can be settled",
            "{:?}",
            answer.outcome
        );
    }
    let rest: Vec<_> = messages.iter().filter(|message| !before.contains(&message.id())).cloned().collect();
    world.drains_exactly(&rest).await
}
