//! Rules 1 and 2: what a claim hands out, and until when.

use crate::storage::rule::{ATOMIC_CLAIM, FENCING, NO_LOSS, STORE_CLOCK, ensure};
use crate::storage::world::{
    LEASE, PAST_LEASE, claimed_ids, id, list, name, retry, settlements, verdict_for,
};
use crate::storage::{OutboxSettings, StorageHarness, Trial, Violation};
use futures_util::future::try_join_all;
use pillarbox_core::{Claim, Storage as _};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

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
    world.advance(PAST_LEASE).await?;
    world.drains_exactly(&messages).await
}

/// Rules 1 and 5, F14: five handles claim and settle at once, inside one task; no message is in two hands, and each is
/// delivered once.
///
/// # Errors
/// The violation.
pub async fn many_claimants_at_once<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(120, None);
    for key in ["a", "b", "c"] {
        messages.extend(world.messages(40, Some(key)));
    }
    world.enqueue(&messages).await?;
    let mut handles = Vec::new();
    for _ in 0..5 {
        handles.push(world.connect().await?);
    }
    let held = RefCell::new(HashSet::new());
    let delivered = RefCell::new(Vec::new());
    let work = handles.iter().map(|handle| async {
        let mut idle = 0;
        while idle < 3 {
            let claimed = world.claim_by(handle, world.ask(7)).await?;
            idle = if claimed.runs.is_empty() { idle + 1 } else { 0 };
            for id in claimed_ids([&claimed]) {
                ensure!(
                    held.borrow_mut().insert(id),
                    ATOMIC_CLAIM,
                    "a message of a live claim is in no other",
                    "{} was handed out while another claim held it",
                    name(id)
                );
            }
            // From here on another may get what this one gives back; what it publishes nobody gets.
            delivered.borrow_mut().extend(claimed_ids([&claimed]));
            world.settle_by(handle, &settlements(&claimed, verdict_for)).await?;
        }
        Ok::<_, Violation>(())
    });
    try_join_all(work).await?;
    let mut delivered = delivered.into_inner();
    delivered.extend(world.drain().await?);
    let mut wanted: Vec<_> = messages.iter().map(pillarbox_core::Message::id).collect();
    delivered.sort_unstable();
    wanted.sort_unstable();
    ensure!(
        delivered == wanted,
        NO_LOSS,
        "each of the 240 messages is delivered once",
        "{} deliveries",
        delivered.len()
    );
    Ok(())
}

/// Rule 1: a claim hands out at most as many messages as it asks for, and repeated claims get everything.
///
/// # Errors
/// The violation.
pub async fn limit_is_respected<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(10, None);
    world.enqueue(&messages).await?;
    // Every claim is checked against its limit as it is made. What shares a lane with what is held comes later.
    let mut got = Vec::new();
    for _ in 0..messages.len() {
        let claimed = world.claim(3).await?;
        got.extend(claimed_ids([&claimed]));
        world.settle(&settlements(&claimed, verdict_for)).await?;
    }
    ensure!(
        got.len() == messages.len(),
        ATOMIC_CLAIM,
        "claims of 3 that settle hand out all 10 messages within 10 claims",
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
    let before = world.claim(0).await?;
    ensure!(before.runs.is_empty(), ATOMIC_CLAIM, "no runs", "{:?}", before.runs);
    world.advance(Duration::from_secs(100)).await?;
    let after = world.claim(0).await?;
    ensure!(
        after.now >= before.now.after(Duration::from_secs(100)),
        STORE_CLOCK,
        "the store's time, which has moved on by 100 s",
        "{:?}, then {:?}",
        before.now,
        after.now
    );
    world.drains_exactly(&messages).await
}

/// An empty outbox answers no runs and nothing to wait for.
///
/// # Errors
/// The violation.
pub async fn empty_outbox_answers_nothing<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    for claim in [world.ask(100), world.ask_solo()] {
        let claimed = world.claim_by(&world.storage, claim).await?;
        ensure!(
            claimed.runs.is_empty()
                && claimed.suspects == 0
                && claimed.buried == 0
                && claimed.next_due.is_none(),
            ATOMIC_CLAIM,
            "no runs, no suspects, nothing buried, no next due time",
            "{claimed:?}"
        );
    }
    Ok(())
}

/// Rule 2, F13: a lease begins at the store's time of the claim and ends exactly the asked time later, on every handle.
///
/// # Errors
/// The violation.
pub async fn lease_is_counted_by_the_store<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, None)).await?;
    let claimed = world.claim(1).await?;
    for run in &claimed.runs {
        ensure!(
            run.lease_until == run.claimed_at.after(LEASE) && run.claimed_at == claimed.now,
            STORE_CLOCK,
            format!("claimed at {:?} and leased for {LEASE:?} from then", claimed.now),
            "claimed at {:?}, leased until {:?}",
            run.claimed_at,
            run.lease_until
        );
    }
    Ok(())
}

/// Rules 1 and 2, F13: no other handle gets a message before its lease has run out on the store's clock.
///
/// # Errors
/// The violation.
pub async fn live_lease_is_not_taken<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = [world.message(None), world.message(Some("a"))];
    world.enqueue(&messages).await?;
    let claims = world.claim_everything(10).await?;
    world.advance(LEASE / 2).await?;
    let other = world.connect().await?;
    for claim in [world.ask(10), world.ask_solo()] {
        let early = world.claim_by(&other, claim).await?;
        let ends = claims.iter().flat_map(|claimed| &claimed.runs).map(|run| run.lease_until).min();
        ensure!(
            early.runs.is_empty() || ends.is_some_and(|end| end <= early.now),
            ATOMIC_CLAIM,
            format!("nothing before {ends:?}, when the first lease ends"),
            "{} at {:?}",
            list(claimed_ids([&early]).into_iter().map(name)),
            early.now
        );
    }
    Ok(())
}

/// Rules 3 and 10, F6: a claim that ends without an outcome strands nothing: after its lease the messages are handed out
/// again, and all are delivered.
///
/// # Errors
/// The violation.
pub async fn abandoned_claim_is_taken_after_its_lease<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(6, None);
    messages.extend(world.messages(6, Some("a")));
    world.enqueue(&messages).await?;
    let lost = world.claim_everything(100).await?;
    world.advance(PAST_LEASE).await?;
    world.take_over(&world.connect().await?, &lost[0]).await?;
    world.advance(PAST_LEASE).await?;
    world.drains_exactly(&messages).await
}

/// Rule 3: the fence of a message rises at every claim, so no token is ever seen twice.
///
/// # Errors
/// The violation.
pub async fn fence_rises_at_every_claim<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = [world.message(None), world.message(Some("a"))];
    world.enqueue(&messages).await?;
    let mut fences = HashMap::new();
    for round in 0..4 {
        // Given back, retried, expired, in turn: each way leads to a new claim.
        let claimed = world.claim(10).await?;
        let claimed = if claimed.runs.is_empty() { world.claim_solo().await? } else { claimed };
        for run in &claimed.runs {
            for entry in claimed.entries_of(run) {
                let place = (id(entry), run.token.unit);
                let before = fences.insert(place, run.token.fence);
                ensure!(
                    before.is_none_or(|before| before < run.token.fence),
                    FENCING,
                    format!("a fence above {before:?}"),
                    "{}",
                    run.token.fence
                );
            }
        }
        match round {
            0 => drop(world.settle(&hand_back(&claimed)).await?),
            1 => drop(world.settle_all(&claimed, &retry(Duration::ZERO)).await?),
            _ => world.advance(PAST_LEASE).await?,
        }
    }
    Ok(())
}

/// Rule 4, F9: messages that fail again and again do not fill every claim: healthy ones behind them are delivered.
///
/// # Errors
/// The violation.
pub async fn healthy_messages_are_not_starved<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let failing = world.messages(50, None);
    let healthy = world.messages(5, None);
    world.enqueue(&failing).await?;
    world.enqueue(&healthy).await?;
    let fails: HashSet<_> = failing.iter().map(pillarbox_core::Message::id).collect();
    let mut missing: HashSet<_> = healthy.iter().map(pillarbox_core::Message::id).collect();
    for _ in 0..40 {
        let claimed = world.claim(5).await?;
        missing.retain(|id| !claimed_ids([&claimed]).contains(id));
        let verdict = |entry: &_| match id(entry) {
            Some(id) if fails.contains(&id) => retry(Duration::from_secs(1)),
            _ => verdict_for(entry),
        };
        world.settle(&settlements(&claimed, verdict)).await?;
        world.advance(Duration::from_secs(2)).await?;
    }
    ensure!(
        missing.is_empty(),
        NO_LOSS,
        "5 healthy messages behind 50 that fail are handed out within 40 claims of 5",
        "{} were not",
        list(missing.into_iter().map(name))
    );
    Ok(())
}

/// Rule 2, F24: nothing is judged by the time at which a message was made: an old one under a fresh claim stays claimed.
///
/// # Errors
/// The violation.
pub async fn age_does_not_end_a_lease<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(2, Some("a"))).await?;
    world.advance(Duration::from_secs(90 * 24 * 3600)).await?;
    let first = world.claim(10).await?;
    ensure!(!first.runs.is_empty(), NO_LOSS, "an old message is handed out", "nothing");
    let second = world.claim_by(&world.connect().await?, world.ask(10)).await?;
    ensure!(
        !claimed_ids([&second]).iter().any(|id| claimed_ids([&first]).contains(id)),
        ATOMIC_CLAIM,
        "a live claim keeps its messages, however old they are",
        "{}",
        list(claimed_ids([&second]).into_iter().map(name))
    );
    Ok(())
}

/// A lease ends when it says, not a whole second later: claims of a millisecond are taken after two.
///
/// # Errors
/// The violation.
pub async fn short_leases_end_in_time<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(4, None);
    world.enqueue(&messages).await?;
    let short = Claim { lease: Duration::from_millis(1), ..world.ask(10) };
    // Its answer may take longer than its lease, so it is not looked at as a live one.
    let first = world.storage.claim(short).await?;
    world.advance(Duration::from_millis(2)).await?;
    world.take_over(&world.connect().await?, &first).await?;
    Ok(())
}

fn hand_back(claimed: &pillarbox_core::Claimed) -> pillarbox_core::Settlements {
    let mut settlements = pillarbox_core::Settlements::new();
    for run in &claimed.runs {
        settlements.hand_back(run.token, Duration::ZERO);
    }
    settlements
}
