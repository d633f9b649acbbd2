//! Rule 6: a head that dies.

use crate::storage::rule::{DEAD_HEAD, ensure};
use crate::storage::world::{LEASE, PAST_LEASE, World, bury, claimed_ids, ids, list, name, release};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Admin, Filter, HeadPolicy, Message, Settlements, Storage as _};

const BLOCK: HeadPolicy = HeadPolicy::Block;

/// Rule 6: the policy is the outbox's setting, and every handle tells it.
///
/// # Errors
/// The violation.
pub async fn head_policy_is_the_outbox_s_setting<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    for policy in [HeadPolicy::Continue, BLOCK] {
        let world = outbox(trial, policy).await?;
        for handle in [&world.storage, &world.connect().await?] {
            let told = handle.guarantees().head_policy;
            ensure!(told == policy, DEAD_HEAD, format!("{policy:?}"), "{told:?}");
        }
    }
    Ok(())
}

/// Rule 6, F10: under `Continue` a dead head is buried and its key goes on.
///
/// # Errors
/// The violation.
pub async fn dead_head_continue<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = outbox(trial, HeadPolicy::Continue).await?;
    let messages = world.messages(4, Some("a"));
    world.enqueue(&messages).await?;
    bury_head(&world, &messages[0], 2).await?;
    drains(&world, &messages[1..], "the rest of the key, in order").await
}

/// Rule 6, F10: under `Block` a dead head holds its key, also messages that come later; other keys go on.
///
/// # Errors
/// The violation.
pub async fn dead_head_block<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = outbox(trial, BLOCK).await?;
    let messages = world.messages(4, Some("a"));
    world.enqueue(&messages).await?;
    bury_head(&world, &messages[0], 2).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    let mut others = vec![world.message(Some("b")), world.message(None)];
    world.enqueue(&others).await?;
    let mut delivered = world.drain().await?;
    delivered.sort_unstable();
    others.sort_unstable_by_key(Message::id);
    ensure!(
        delivered == ids(&others),
        DEAD_HEAD,
        format!("only messages of other keys, {}", list(ids(&others).into_iter().map(name))),
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

/// Rules 4 and 6: under `Block` a head that is buried for its strikes holds its key too.
///
/// # Errors
/// The violation.
pub async fn deadly_head_blocks<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let settings = OutboxSettings { head_policy: BLOCK, max_strikes: 1, ..OutboxSettings::default() };
    let world = trial.world(&settings).await?;
    let messages = world.messages(2, Some("a"));
    world.enqueue(&messages).await?;
    world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    world.claim(1).await?;
    let solo = world.claim_solo().await?;
    ensure!(
        claimed_ids([&solo]) == [messages[0].id()],
        DEAD_HEAD,
        format!("{}, as a suspect", name(messages[0].id())),
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    world.storage.renew(&[solo.runs[0].token], LEASE).await?;
    world.advance(PAST_LEASE).await?;
    drains(&world, &[], "nothing: the head was buried at the next claim, and holds its key").await
}

/// Rule 6, F10: a message redriven under `Continue` counts as new: it comes behind those of its key that wait.
///
/// # Errors
/// The violation.
pub async fn redrive_under_continue_counts_as_new<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = outbox(trial, HeadPolicy::Continue).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    bury_head(&world, &messages[0], 1).await?;
    redrive(admin(&world)?).await?;
    drains(
        &world,
        &[messages[1].clone(), messages[2].clone(), messages[0].clone()],
        "the redriven message comes last",
    )
    .await
}

/// Rule 6, F10: a message redriven under `Block` returns to the head of its key, and the key goes on.
///
/// # Errors
/// The violation.
pub async fn redrive_under_block_returns_to_the_head<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = outbox(trial, BLOCK).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    bury_head(&world, &messages[0], 2).await?;
    drains(&world, &[], "nothing before the redrive").await?;
    redrive(admin(&world)?).await?;
    drains(&world, &messages, "the redriven message first, then the rest").await
}

/// Rule 6: under `Block` a discard of the dead head frees its key.
///
/// # Errors
/// The violation.
pub async fn discard_frees_a_blocked_key<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = outbox(trial, BLOCK).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    bury_head(&world, &messages[0], 2).await?;
    drains(&world, &[], "nothing before the discard").await?;
    admin(&world)?.discard(Filter::id(messages[0].id()), 10, false).await?;
    drains(&world, &messages[1..], "the rest of the key").await
}

/// Rule 6: under `Block` a dead letter without a key holds nobody.
///
/// # Errors
/// The violation.
pub async fn unkeyed_dead_letter_blocks_nobody<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = outbox(trial, BLOCK).await?;
    world.enqueue(&world.messages(1, None)).await?;
    let claimed = world.claim(1).await?;
    world.settle_all(&claimed, &bury()).await?;
    let others = world.messages(3, None);
    world.enqueue(&others).await?;
    world.drains_exactly(&others).await
}

/// Rules 4 and 6: a redrive resets both counters.
///
/// # Errors
/// The violation.
pub async fn redrive_resets_both_counters<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for policy in [HeadPolicy::Continue, BLOCK] {
        let world = outbox(trial, policy).await?;
        let messages = world.messages(1, Some("a"));
        world.enqueue(&messages).await?;
        for verdict in [crate::storage::world::retry(std::time::Duration::ZERO), bury()] {
            let claimed = world.claim(1).await?;
            world.settle_all(&claimed, &verdict).await?;
        }
        redrive(admin(&world)?).await?;
        let claimed = world.claim(1).await?;
        let charged: Vec<_> = claimed.entries.iter().map(|entry| (entry.attempts, entry.strikes)).collect();
        ensure!(charged == [(0, 0)], DEAD_HEAD, "no attempts and no strikes", "{charged:?}");
    }
    Ok(())
}

async fn outbox<H: StorageHarness>(
    trial: &Trial<H>,
    head_policy: HeadPolicy,
) -> Result<World<'_, H::Store>, Violation> {
    trial.world(&OutboxSettings { head_policy, ..OutboxSettings::default() }).await
}

/// Claims the head and up to so many with it, buries it and releases the others.
async fn bury_head<S: TestStore>(world: &World<'_, S>, head: &Message, limit: u32) -> Result<(), Violation> {
    let claimed = world.claim(limit).await?;
    let mut call = Settlements::new();
    for (number, run) in claimed.runs.iter().enumerate() {
        let mut verdicts = vec![release(); run.len as usize];
        if number == 0 {
            verdicts[0] = bury();
        }
        call.verdicts(run.token, verdicts);
    }
    ensure!(
        claimed.entries.first().and_then(crate::storage::world::id) == Some(head.id()),
        DEAD_HEAD,
        format!("the head of the key, {}, comes first", name(head.id())),
        "{}",
        list(claimed_ids([&claimed]).into_iter().map(name))
    );
    world.settle(&call).await?;
    Ok(())
}

async fn drains<S: TestStore>(world: &World<'_, S>, wanted: &[Message], what: &str) -> Result<(), Violation> {
    let delivered = world.drain().await?;
    ensure!(
        delivered == ids(wanted),
        DEAD_HEAD,
        format!("{what}: {}", list(ids(wanted).into_iter().map(name))),
        "{}",
        list(delivered.into_iter().map(name))
    );
    Ok(())
}

fn admin<'a, S: TestStore>(world: &'a World<'_, S>) -> Result<&'a dyn Admin, Violation> {
    world
        .storage
        .admin()
        .ok_or_else(|| Violation::Harness("the storage declares `admin` and offers none".into()))
}

async fn redrive(admin: &dyn Admin) -> Result<(), Violation> {
    let affected = admin.redrive(Filter::all(), 10, false).await?;
    ensure!(affected.count == 1, DEAD_HEAD, "the one dead letter is redriven", "{affected:?}");
    Ok(())
}
