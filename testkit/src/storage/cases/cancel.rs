//! Rule 10: a future that is dropped at any of its awaits, as when its relay dies.

use crate::storage::rule::{CANCEL, ensure};
use crate::storage::world::{
    LEASE, PAST_LEASE, World, claimed_ids, list, name, settlements, tokens, verdict_for,
};
use crate::storage::{OutboxSettings, Producer as _, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Message, MessageId, Storage as _};
use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::task::Poll;

/// How often a future is polled at most before it is dropped: more awaits than any call has.
const POLLS: u32 = 64;

/// Rule 10, F6 and F35: a claim that is dropped strands nothing: it is repeated with its nonce, the handle still answers its
/// own replies, and everything is delivered.
///
/// # Errors
/// The violation.
pub async fn dropped_claim_strands_nothing<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in 0..POLLS {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = some(&world).await?;
        let ask = world.ask(4);
        let ended = polled(world.storage.claim(ask), polls).await.is_some();
        world.note(format!("a claim was dropped after {polls} polls"));
        let repeated = world.claim_by(&world.storage, ask).await?;
        let charged = repeated.entries.iter().filter(|entry| entry.attempts + entry.strikes > 0).count();
        ensure!(charged == 0, CANCEL, "a repeated claim charges nothing", "{charged} entries were charged");
        world.settle(&settlements(&repeated, verdict_for)).await?;
        rest_is_delivered(&world, &messages, claimed_ids([&repeated])).await?;
        if ended {
            return Ok(());
        }
    }
    Ok(())
}

/// Rule 10: a settlement that is dropped is repeated: applied now or before, and nothing is delivered twice or lost.
///
/// # Errors
/// The violation.
pub async fn dropped_settle_is_repeated<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in 0..POLLS {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = some(&world).await?;
        let claimed = world.claim(4).await?;
        let call = settlements(&claimed, verdict_for);
        let ended = polled(world.storage.settle(&call), polls).await.is_some();
        world.note(format!("a settlement was dropped after {polls} polls"));
        let answers = world.settle(&call).await?;
        ensure!(answers.len() == call.len(), CANCEL, "one answer per token", "{answers:?}");
        rest_is_delivered(&world, &messages, claimed_ids([&claimed])).await?;
        if ended {
            return Ok(());
        }
    }
    Ok(())
}

/// Rule 10: a renewal that is dropped leaves the lease prolonged or not; the run is settled all the same.
///
/// # Errors
/// The violation.
pub async fn dropped_renew_does_no_harm<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in 0..POLLS {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = some(&world).await?;
        let claimed = world.claim(4).await?;
        let held = tokens(&claimed);
        let ended = polled(world.storage.renew(&held, LEASE), polls).await.is_some();
        world.note(format!("a renewal was dropped after {polls} polls"));
        let again = world.storage.renew(&held, LEASE).await?;
        ensure!(again.len() == held.len(), CANCEL, "one answer per token", "{again:?}");
        world.settle(&settlements(&claimed, verdict_for)).await?;
        rest_is_delivered(&world, &messages, claimed_ids([&claimed])).await?;
        if ended {
            return Ok(());
        }
    }
    Ok(())
}

/// Rule 10: a transaction that is dropped while it enqueues or commits is there as a whole or not at all.
///
/// # Errors
/// The violation.
pub async fn dropped_commit_is_all_or_nothing<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in 0..POLLS {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = world.messages(5, Some("a"));
        let ended = polled(world.producer.enqueue_alone(&messages), polls).await.is_some();
        world.note(format!("a producer was dropped after {polls} polls"));
        // What was sent to the server may still take effect: another commit on a connection of its own is behind it.
        world.enqueue(&world.messages(1, Some("b"))).await?;
        let delivered = world.drain().await?;
        let count = messages.iter().filter(|message| delivered.contains(&message.id())).count();
        ensure!(
            count == 0 || count == messages.len(),
            CANCEL,
            "all five messages of the transaction or none",
            "{}",
            list(delivered.into_iter().map(name))
        );
        if ended {
            return Ok(());
        }
    }
    Ok(())
}

async fn some<S: TestStore>(world: &World<'_, S>) -> Result<Vec<Message>, Violation> {
    let mut messages = world.messages(4, Some("a"));
    messages.extend(world.messages(4, None));
    world.enqueue(&messages).await?;
    Ok(messages)
}

/// Everything is delivered, over leases that somebody left; what the dropped call settled late is in `delivered` already.
async fn rest_is_delivered<S: TestStore>(
    world: &World<'_, S>,
    messages: &[Message],
    mut delivered: Vec<MessageId>,
) -> Result<(), Violation> {
    world.advance(PAST_LEASE).await?;
    delivered.extend(world.drain().await?);
    let seen: HashSet<_> = delivered.iter().copied().collect();
    let missing = messages.iter().filter(|message| !seen.contains(&message.id()));
    let missing = list(missing.map(|message| name(message.id())));
    ensure!(missing == "nothing", CANCEL, "every message is delivered", "{missing} never was");
    ensure!(
        delivered.len() == seen.len(),
        CANCEL,
        "what was settled is not handed out again",
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

/// Polls a future so many times, then drops it; `None` if it had not ended by then.
async fn polled<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll was this one: it is dropped while its answer is on its way.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
