//! Rule 5: order per key.

use crate::storage::rule::{KEY_ORDER, ensure};
use crate::storage::world::{
    PAST_LEASE, World, claimed_ids, holds, id, ids, list, name, release, retry, settlements, verdict_for,
};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Claimed, Entry, Message, MessageId, Settlements, Verdict};
use std::time::Duration;

const DELAY: Duration = Duration::from_secs(100);

/// Rule 5: messages of one key are delivered in the order in which they were enqueued, over transactions and claims.
///
/// # Errors
/// The violation.
pub async fn keys_are_delivered_in_order<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut sent = [const { Vec::new() }; 3];
    for _ in 0..20 {
        let messages: Vec<_> = ["a", "b", "c"].iter().map(|key| world.message(Some(key))).collect();
        for (key, message) in sent.iter_mut().zip(&messages) {
            key.push(message.id());
        }
        world.enqueue(&messages).await?;
    }
    let delivered = world.drain().await?;
    for key in sent {
        let got: Vec<_> = delivered.iter().filter(|id| key.contains(id)).copied().collect();
        ensure!(
            got == key,
            KEY_ORDER,
            list(key.into_iter().map(name)),
            "{}",
            list(got.into_iter().map(name))
        );
    }
    Ok(())
}

/// Rule 5: while an earlier message of a key is claimed, no other claim gets a later one, also not one that was enqueued
/// meanwhile.
///
/// # Errors
/// The violation.
pub async fn one_holder_of_a_key_at_a_time<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(4, Some("a"));
    world.enqueue(&messages).await?;
    let first = world.claim(2).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    let other = world.connect().await?;
    let second = world.claim_by(&other, world.ask(10)).await?;
    ensure!(
        !first.runs.is_empty() && second.runs.is_empty(),
        KEY_ORDER,
        format!(
            "nothing for another claim while {} are held",
            list(claimed_ids([&first]).into_iter().map(name))
        ),
        "{}",
        list(claimed_ids([&second]).into_iter().map(name))
    );
    Ok(())
}

/// Rule 5: while one key is held, the messages of others go on, at the latest once their lane is free.
///
/// # Errors
/// The violation.
pub async fn other_keys_of_a_run_go_on<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let held = world.messages(3, Some("a"));
    world.enqueue(&held).await?;
    let mut others = Vec::new();
    for key in ["b", "c", "d", "e", "f", "g", "h"] {
        others.extend(world.messages(2, Some(key)));
    }
    others.extend(world.messages(4, None));
    world.enqueue(&others).await?;
    // The first message of `a` waits for its retry: the rest of its key waits, and all others are delivered now.
    let mut delivered = Vec::new();
    for _ in 0..60 {
        let claimed = world.claim(100).await?;
        let call = settlements_stopping_at(&claimed, held[0].id(), &held);
        delivered.extend(published(&claimed, &call));
        world.settle(&call).await?;
    }
    let missing: Vec<_> = ids(&others).into_iter().filter(|id| !delivered.contains(id)).collect();
    ensure!(
        missing.is_empty(),
        KEY_ORDER,
        "every message of other keys is delivered while `a` waits",
        "not delivered: {}",
        list(missing.into_iter().map(name))
    );
    world.drains_exactly(&held).await
}

/// Rule 5: a retry parks its key: no later message of the key is handed out before the retry was.
///
/// # Errors
/// The violation.
pub async fn retry_parks_its_key<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    parks(trial, &retry(DELAY)).await
}

/// Rule 5: a release with a delay parks its key as a retry does, whatever the delays of the later ones.
///
/// # Errors
/// The violation.
pub async fn release_with_delay_parks_its_key<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    parks(trial, &Verdict::Release { after: DELAY }).await
}

async fn parks<H: StorageHarness>(trial: &Trial<H>, verdict: &Verdict) -> Result<(), Violation> {
    for count in [1, 3] {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = world.messages(5, Some("a"));
        world.enqueue(&messages).await?;
        let first = world.claim(count).await?;
        let mut call = Settlements::new();
        for run in &first.runs {
            let rest = vec![release(); run.len as usize - 1];
            call.verdicts(run.token, std::iter::once(verdict.clone()).chain(rest));
        }
        let settled = world.settle(&call).await?;
        world.enqueue(&world.messages(1, Some("a"))).await?;
        for _ in 0..2 {
            let early = world.claim(100).await?;
            ensure!(
                early.runs.is_empty() || settled.iter().all(|answer| answer.at.after(DELAY) <= early.now),
                KEY_ORDER,
                format!("nothing of the key before {DELAY:?} have passed"),
                "{} at {:?}",
                list(claimed_ids([&early]).into_iter().map(name)),
                early.now
            );
            world.advance(DELAY / 4).await?;
        }
        let delivered = world.drain().await?;
        let wanted = ids(&messages);
        ensure!(
            delivered[..wanted.len().min(delivered.len())] == wanted,
            KEY_ORDER,
            list(wanted.into_iter().map(name)),
            "{}",
            list(delivered.into_iter().map(name))
        );
    }
    Ok(())
}

/// Rule 5, F12: of a run the delivered prefix of a key is settled and the rest released; the rest comes back in order.
///
/// # Errors
/// The violation.
pub async fn released_rest_comes_back_in_order<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(9, Some("a"));
    world.enqueue(&messages).await?;
    let mut delivered = Vec::new();
    for round in 0..60_usize {
        let claimed = world.claim(4).await?;
        let mut call = Settlements::new();
        for run in &claimed.runs {
            let entries = claimed.entries_of(run);
            let prefix = (round % 3).min(entries.len());
            delivered.extend(entries[..prefix].iter().filter_map(id));
            let mut verdicts = vec![Verdict::Published; prefix];
            verdicts.extend((prefix..entries.len()).map(|at| match at == prefix && round % 2 == 0 {
                true => retry(Duration::ZERO),
                false => release(),
            }));
            call.verdicts(run.token, verdicts);
        }
        world.settle(&call).await?;
    }
    delivered.extend(world.drain().await?);
    let wanted = ids(&messages);
    ensure!(
        delivered == wanted,
        KEY_ORDER,
        list(wanted.into_iter().map(name)),
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

/// Rule 5: a key whose holder died stays in order, though its messages come back in smaller runs and alone.
///
/// # Errors
/// The violation.
pub async fn expired_key_stays_in_order<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(7, Some("a"));
    world.enqueue(&messages).await?;
    for _ in 0..4 {
        world.claim(5).await?;
        world.advance(PAST_LEASE).await?;
    }
    in_order(&world, &messages).await
}

/// Rule 5: a parked key whose holder died, when it was handed out again, stays in order too.
///
/// # Errors
/// The violation.
pub async fn expired_parked_key_stays_in_order<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(6, Some("a"));
    world.enqueue(&messages).await?;
    let claimed = world.claim(6).await?;
    let mut call = Settlements::new();
    for run in &claimed.runs {
        let rest = vec![release(); run.len as usize - 1];
        call.verdicts(run.token, std::iter::once(retry(DELAY)).chain(rest));
    }
    world.settle(&call).await?;
    let later = world.messages(3, Some("a"));
    world.enqueue(&later).await?;
    messages.extend(later);
    world.advance(DELAY + DELAY).await?;
    for _ in 0..2 {
        world.claim(100).await?;
        world.advance(PAST_LEASE).await?;
    }
    in_order(&world, &messages).await
}

/// Rule 5: a keyed message with a time of delivery blocks nobody of its key before.
///
/// # Errors
/// The violation.
pub async fn scheduled_keyed_message_blocks_nobody<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let later = world.now().await?.after(DELAY);
    let scheduled = world.message_due(Some("a"), Some(later));
    let others = world.messages(2, Some("a"));
    world.enqueue(std::slice::from_ref(&scheduled)).await?;
    world.enqueue(&others).await?;
    let claims = world.claim_everything(10).await?;
    let got = claimed_ids(&claims);
    ensure!(
        got == ids(&others),
        KEY_ORDER,
        format!("the two that are due, {}", list(ids(&others).into_iter().map(name))),
        "{}",
        list(got.into_iter().map(name))
    );
    for claimed in &claims {
        world.settle_all(claimed, &Verdict::Published).await?;
    }
    world.drains_exactly(&[scheduled]).await
}

/// Rule 5: a keyed message with a time of delivery joins its key when it falls due: not in front of what is held or waits.
///
/// # Errors
/// The violation.
pub async fn scheduled_keyed_message_joins_its_key<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let later = world.now().await?.after(DELAY);
    let scheduled = world.message_due(Some("a"), Some(later));
    let first = world.message(Some("a"));
    world.enqueue(&[scheduled.clone(), first.clone()]).await?;
    let claimed = world.claim(10).await?;
    world.settle_all(&claimed, &retry(DELAY * 3)).await?;
    world.advance(DELAY + DELAY / 2).await?;
    let early = world.claim(10).await?;
    ensure!(
        early.runs.is_empty(),
        KEY_ORDER,
        "due while its key waits for a retry, it waits behind that",
        "{}",
        list(claimed_ids([&early]).into_iter().map(name))
    );
    in_order(&world, &[first, scheduled]).await
}

/// Rule 5: after a takeover the key goes on where the first holder was: what that one had published is not handed out.
///
/// # Errors
/// The violation.
pub async fn takeover_goes_on_where_the_key_was<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(6, Some("a"));
    world.enqueue(&messages).await?;
    let mut delivered = Vec::new();
    let claimed = world.claim(2).await?;
    delivered.extend(claimed_ids([&claimed]));
    world.settle_all(&claimed, &Verdict::Published).await?;
    world.claim(2).await?;
    world.advance(PAST_LEASE).await?;
    delivered.extend(world.drain().await?);
    let wanted = ids(&messages);
    ensure!(
        delivered == wanted,
        KEY_ORDER,
        list(wanted.into_iter().map(name)),
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

async fn in_order<S: TestStore>(world: &World<'_, S>, messages: &[Message]) -> Result<(), Violation> {
    let delivered = world.drain().await?;
    let wanted = ids(messages);
    ensure!(
        delivered == wanted,
        KEY_ORDER,
        list(wanted.into_iter().map(name)),
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

/// Publishes everything but the key of `stop`: from that message on a retry, then releases.
fn settlements_stopping_at(claimed: &Claimed, stop: MessageId, key: &[Message]) -> Settlements {
    let mut call = Settlements::new();
    for run in &claimed.runs {
        let of_key = |entry: &Entry| id(entry).is_some_and(|id| ids(key).contains(&id));
        let stopped = holds(claimed, run, stop);
        call.verdicts(
            run.token,
            claimed.entries_of(run).iter().map(|entry| match id(entry) {
                Some(id) if id == stop => retry(DELAY * 100),
                _ if stopped && of_key(entry) => release(),
                _ => verdict_for(entry),
            }),
        );
    }
    call
}

fn published(claimed: &Claimed, call: &Settlements) -> Vec<MessageId> {
    let verdicts = call.iter().flat_map(|(_, settlement)| match settlement {
        pillarbox_core::Settlement::Verdicts(verdicts) => verdicts.to_vec(),
        pillarbox_core::Settlement::HandBack { .. } => Vec::new(),
    });
    let delivered =
        claimed.entries.iter().zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Published);
    delivered.filter_map(|(entry, _)| id(entry)).collect()
}

/// Rule 5: messages without a key wait for nobody: the retry of one holds no other up.
///
/// # Errors
/// The violation.
pub async fn unkeyed_messages_wait_for_nobody<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(6, None);
    world.enqueue(&messages).await?;
    let mut delivered = Vec::new();
    for _ in 0..20 {
        let claimed = world.claim(2).await?;
        let failing = messages[0].id();
        let call = settlements(&claimed, |entry| match id(entry) == Some(failing) {
            true => retry(DELAY),
            false => verdict_for(entry),
        });
        delivered.extend(published(&claimed, &call));
        world.settle(&call).await?;
    }
    ensure!(
        delivered.len() == 5,
        KEY_ORDER,
        "the 5 other messages are delivered while one waits for its retry",
        "{}",
        list(delivered.into_iter().map(name))
    );
    world.drains_exactly(&messages[..1]).await
}
