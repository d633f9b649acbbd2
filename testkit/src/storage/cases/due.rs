//! Rule 2: due times, and how an idle relay learns of them.

use crate::storage::rule::{NO_LOSS, STORE_CLOCK, ensure};
use crate::storage::world::{World, claimed_ids, list, name, retry};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Settlements, Timestamp, Verdict};
use std::time::Duration;

const DELAY: Duration = Duration::from_secs(300);

/// Rule 2, F21: a scheduled message is not handed out before its time, with a key or without, and is handed out then.
///
/// # Errors
/// The violation.
pub async fn scheduled_is_not_claimable_before<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        let due = world.now().await?.after(DELAY);
        let scheduled = world.message_due(key, Some(due));
        world.enqueue(std::slice::from_ref(&scheduled)).await?;
        not_before(&world, due).await?;
        world.advance(DELAY).await?;
        let claimed = world.claim_everything(10).await?;
        ensure!(
            claimed_ids(&claimed) == [scheduled.id()],
            STORE_CLOCK,
            format!("{} once it is due", name(scheduled.id())),
            "{}",
            list(claimed_ids(&claimed).into_iter().map(name))
        );
    }
    Ok(())
}

/// Rule 2: a time of delivery in the past is now.
///
/// # Errors
/// The violation.
pub async fn scheduled_for_the_past_is_due_now<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let now = world.now().await?;
    let mut messages = Vec::new();
    for past in [Timestamp::EPOCH, Timestamp::from_millis(-1_000), now.before(DELAY)] {
        messages.push(world.message_due(None, Some(past)));
        messages.push(world.message_due(Some("a"), Some(past)));
    }
    world.enqueue(&messages).await?;
    let claims = world.claim_everything(10).await?;
    let got = claimed_ids(&claims).len();
    ensure!(got == messages.len(), STORE_CLOCK, format!("all {} now", messages.len()), "{got}");
    Ok(())
}

/// Rules 1 and 2, F25 and F29: a retried message is due exactly its delay after the store's time of the settlement: not
/// before, however many relays ask, and not a claim timeout later.
///
/// # Errors
/// The violation.
pub async fn retry_waits_exactly_its_delay<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    waits(trial, Some(&retry(DELAY))).await
}

/// Rule 2: a message that is released with a delay is due exactly that delay later.
///
/// # Errors
/// The violation.
pub async fn release_waits_exactly_its_delay<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    waits(trial, Some(&Verdict::Release { after: DELAY })).await
}

/// Rule 2: a run that is handed back with a delay is due exactly that delay later.
///
/// # Errors
/// The violation.
pub async fn hand_back_waits_exactly_its_delay<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    waits(trial, None).await
}

async fn waits<H: StorageHarness>(trial: &Trial<H>, verdict: Option<&Verdict>) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = world.messages(1, key);
        world.enqueue(&messages).await?;
        let claimed = world.claim(1).await?;
        let mut call = Settlements::new();
        for run in &claimed.runs {
            match verdict {
                Some(verdict) => call.verdicts(run.token, [verdict.clone()]),
                None => call.hand_back(run.token, DELAY),
            }
        }
        let settled = world.settle(&call).await?;
        let Some(due) = settled.first().map(|answer| answer.at.after(DELAY)) else { continue };
        not_before(&world, due).await?;
        world.advance(DELAY).await?;
        let claims = world.claim_everything(10).await?;
        ensure!(
            claimed_ids(&claims) == [messages[0].id()],
            STORE_CLOCK,
            format!("handed out once {due:?} has passed"),
            "{}",
            list(claimed_ids(&claims).into_iter().map(name))
        );
    }
    Ok(())
}

/// Two handles ask until shortly before the time; then `next_due` must name it.
async fn not_before<S: TestStore>(world: &World<'_, S>, due: Timestamp) -> Result<(), Violation> {
    let other = world.connect().await?;
    for _ in 0..3 {
        for handle in [&world.storage, &other] {
            let early = world.claim_by(handle, world.ask(10)).await?;
            ensure!(
                early.runs.is_empty() || early.now >= due,
                STORE_CLOCK,
                format!("nothing before {due:?}"),
                "{} at {:?}",
                list(claimed_ids([&early]).into_iter().map(name)),
                early.now
            );
        }
        world.advance(DELAY / 4).await?;
    }
    // A relay sleeps until then, so an earlier answer costs a claim, a later one delays the message.
    let mut told = None;
    for _ in 0..10 {
        let early = world.claim(10).await?;
        told = early.next_due;
        if told.is_none_or(|told| told > early.now) {
            break;
        }
    }
    ensure!(
        told.is_some_and(|told| told <= due),
        STORE_CLOCK,
        format!("a claim that finds nothing tells when the next message is due: {due:?}, or earlier"),
        "{told:?}"
    );
    world.advance(Duration::ZERO).await
}

/// Rule 2: `next_due` also tells when the lease of an abandoned claim ends.
///
/// # Errors
/// The violation.
pub async fn next_due_tells_the_end_of_a_lease<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    let held = world.claim(1).await?;
    let until = held.runs.iter().map(|run| run.lease_until).min();
    let idle = world.claim_by(&world.connect().await?, world.ask(1)).await?;
    ensure!(
        idle.next_due.is_some() && idle.next_due <= until,
        STORE_CLOCK,
        format!("{until:?}, when the lease of the other claim ends, or earlier"),
        "{:?}",
        idle.next_due
    );
    Ok(())
}

/// Rule 2, F29: a retry without a delay is due at once, not after the lease.
///
/// # Errors
/// The violation.
pub async fn retry_without_delay_is_due_at_once<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        world.enqueue(&world.messages(1, key)).await?;
        for _ in 0..5 {
            let claimed = world.claim(1).await?;
            ensure!(claimed.entries.len() == 1, NO_LOSS, "the message, at once", "nothing");
            world.settle_all(&claimed, &retry(Duration::ZERO)).await?;
        }
    }
    Ok(())
}

/// Rule 2: many messages that wait for different times come in the order of these times.
///
/// # Errors
/// The violation.
pub async fn scheduled_messages_come_when_each_is_due<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let start = world.now().await?;
    let mut scheduled = Vec::new();
    for step in [5_u32, 1, 4, 2, 3] {
        scheduled.push((step, world.message_due(None, Some(start.after(DELAY * step)))));
    }
    let messages: Vec<_> = scheduled.iter().map(|(_, message)| message.clone()).collect();
    world.enqueue(&messages).await?;
    scheduled.sort_by_key(|(step, _)| *step);
    for (step, message) in scheduled {
        world.advance(DELAY).await?;
        let claims = world.claim_everything(10).await?;
        ensure!(
            claimed_ids(&claims) == [message.id()],
            STORE_CLOCK,
            format!("{} in step {step}", name(message.id())),
            "{}",
            list(claimed_ids(&claims).into_iter().map(name))
        );
        for claimed in &claims {
            world.settle_all(claimed, &Verdict::Published).await?;
        }
    }
    Ok(())
}

/// Rule 2, F21: more messages than any statement or script takes fall due in one moment, and all arrive.
///
/// # Errors
/// The violation.
pub async fn thousands_that_fall_due_at_once_arrive<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let due = world.now().await?.after(DELAY);
    let messages: Vec<_> = (0..THOUSANDS).map(|_| world.message_due(None, Some(due))).collect();
    for part in messages.chunks(1_000) {
        world.enqueue(part).await?;
    }
    world.advance(DELAY).await?;
    let mut delivered = 0;
    // As long as each claim hands something out, be it less than it may, or says that more is due.
    for _ in 0..THOUSANDS {
        let claimed = world.claim(500).await?;
        if claimed.runs.is_empty() && claimed.next_due.is_none_or(|next| next > claimed.now) {
            break;
        }
        delivered += claimed.entries.len();
        world.settle_all(&claimed, &Verdict::Published).await?;
    }
    ensure!(
        delivered == messages.len(),
        NO_LOSS,
        format!("all {THOUSANDS} that fell due at once"),
        "{delivered} were handed out before a claim had nothing"
    );
    Ok(())
}

/// Above the 8,000 values that a Lua script can unpack, and above what SQL statements take as parameters with a few each.
const THOUSANDS: usize = 9_000;
