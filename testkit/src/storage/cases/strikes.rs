//! Rule 4: what is charged, to whom, and who is buried.

use crate::storage::rule::{COUNTED, ensure};
use crate::storage::world::{
    LEASE, PAST_LEASE, World, claimed_ids, id, list, name, release, retry, settlements, verdict_for,
};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Claimed, MessageId, Settlements, Storage as _};
use std::collections::HashSet;
use std::time::Duration;

/// Rule 4, F7: a message that kills every relay which sends it is found by halving and buried, within log2(run) deaths and
/// `max_strikes` more; none of the healthy messages beside it is buried, and all of them are delivered.
///
/// # Errors
/// The violation.
pub async fn a_deadly_message_is_found_by_halving<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        let before = world.messages(37, key);
        let deadly = world.message(key);
        let after = world.messages(26, key);
        world.enqueue(&before).await?;
        world.enqueue(std::slice::from_ref(&deadly)).await?;
        world.enqueue(&after).await?;
        let mut delivered = HashSet::new();
        let found = kill_relays(&world, deadly.id(), 64, &mut delivered).await?;
        let allowed = found.first_run.max(2).ilog2() + world.settings.max_strikes;
        ensure!(
            found.deaths <= allowed,
            COUNTED,
            format!("at most {allowed} deaths for a first run of {}", found.first_run),
            "{} deaths",
            found.deaths
        );
        ensure!(found.buried == 1, COUNTED, "one message is buried", "{}", found.buried);
        let healthy: HashSet<MessageId> =
            before.iter().chain(&after).map(pillarbox_core::Message::id).collect();
        ensure!(
            delivered == healthy,
            COUNTED,
            "every healthy message is delivered, and the deadly one is not",
            "not delivered: {}",
            list(healthy.difference(&delivered).copied().map(name))
        );
    }
    Ok(())
}

/// Rule 4, F7: messages in other claims, keys and lanes are not charged for the deadly one.
///
/// # Errors
/// The violation.
pub async fn nobody_is_buried_for_a_neighbour<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut healthy = Vec::new();
    for key in ["a", "b", "c", "d"] {
        healthy.extend(world.messages(8, Some(key)));
    }
    healthy.extend(world.messages(16, None));
    let deadly = world.message(Some("c"));
    world.enqueue(&healthy).await?;
    world.enqueue(std::slice::from_ref(&deadly)).await?;
    let mut delivered = HashSet::new();
    let found = kill_relays(&world, deadly.id(), 100, &mut delivered).await?;
    ensure!(found.buried == 1, COUNTED, "one message is buried", "{}", found.buried);
    let missing: Vec<_> = healthy.iter().filter(|message| !delivered.contains(&message.id())).collect();
    ensure!(
        missing.is_empty() && !delivered.contains(&deadly.id()),
        COUNTED,
        "every healthy message is delivered, and the deadly one is not",
        "not delivered: {}",
        list(missing.iter().map(|message| name(message.id())))
    );
    Ok(())
}

/// Rule 4: a message that stands alone under suspicion goes only to a claim that asks for `solo`, as its only message; an
/// ordinary claim says that suspects wait.
///
/// # Errors
/// The violation.
pub async fn suspects_go_only_to_solo_claims<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let suspect = suspect(&world).await?;
    let ordinary = world.claim(10).await?;
    ensure!(
        ordinary.runs.is_empty() && ordinary.suspects > 0,
        COUNTED,
        "an ordinary claim gets nothing and hears of a suspect",
        "{}, {} suspects",
        list(claimed_ids([&ordinary]).into_iter().map(name)),
        ordinary.suspects
    );
    let solo =
        world.claim_by(&world.storage, pillarbox_core::Claim { limit: 10, ..world.ask_solo() }).await?;
    ensure!(
        claimed_ids([&solo]) == [suspect],
        COUNTED,
        format!("the solo claim gets {} and nothing else", name(suspect)),
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    Ok(())
}

/// Rule 4: without suspects a solo claim gets nothing.
///
/// # Errors
/// The violation.
pub async fn solo_claim_gets_suspects_only<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = [world.message(None), world.message(Some("a"))];
    world.enqueue(&messages).await?;
    let solo = world.claim_solo().await?;
    ensure!(
        solo.runs.is_empty(),
        COUNTED,
        "nothing, since nothing is suspect",
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    world.drains_exactly(&messages).await
}

/// Rule 4: of two suspects one solo claim gets one.
///
/// # Errors
/// The violation.
pub async fn solo_claim_gets_one_suspect<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(2, None);
    world.enqueue(&messages).await?;
    world.claim_everything(10).await?;
    world.advance(PAST_LEASE).await?;
    world.claim(10).await?;
    let solo =
        world.claim_by(&world.storage, pillarbox_core::Claim { limit: 10, ..world.ask_solo() }).await?;
    ensure!(
        solo.entries.len() == 1,
        COUNTED,
        "one of the suspects",
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    world.advance(PAST_LEASE).await?;
    world.drains_exactly(&messages).await
}

/// Rule 4: a solo claim finds a suspect among healthy messages that are due too, older and newer ones.
///
/// # Errors
/// The violation.
pub async fn solo_claim_finds_the_suspect_among_others<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let suspect = suspect(&world).await?;
    world.enqueue(&world.messages(20, None)).await?;
    world.advance(Duration::from_secs(1)).await?;
    // This claim may charge the suspect's lost holder, so that the others have been due for longer. What it hands out goes
    // back.
    let others = world.claim(1).await?;
    world.settle_all(&others, &release()).await?;
    world.enqueue(&world.messages(20, Some("b"))).await?;
    let solo = world.claim_solo().await?;
    ensure!(
        claimed_ids([&solo]) == [suspect],
        COUNTED,
        format!("a solo claim gets the suspect {}", name(suspect)),
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    Ok(())
}

/// Rule 4: only a strike on a renewed solo claim counts. Answers of solo claims that were lost, however often, bury nobody.
///
/// # Errors
/// The violation.
pub async fn strike_counts_only_on_a_renewed_solo_claim<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let suspect = suspect(&world).await?;
    for round in 0..world.settings.max_strikes + 2 {
        let solo = solo_of(&world, suspect).await?;
        ensure!(
            solo.entries[0].strikes == 0,
            COUNTED,
            "no strike",
            "{} in round {round}",
            solo.entries[0].strikes
        );
        world.advance(PAST_LEASE).await?;
    }
    for strikes in 0..world.settings.max_strikes {
        let solo = solo_of(&world, suspect).await?;
        ensure!(
            solo.entries[0].strikes == strikes,
            COUNTED,
            format!("{strikes} strikes after as many deaths on a renewed solo claim"),
            "{}",
            solo.entries[0].strikes
        );
        world.storage.renew(&[solo.runs[0].token], LEASE).await?;
        world.advance(PAST_LEASE).await?;
    }
    let (mut buried, mut handed_out) = (0, Vec::new());
    for claim in [world.ask(10), world.ask_solo()] {
        let claimed = world.claim_by(&world.storage, claim).await?;
        buried += claimed.buried;
        handed_out.extend(claimed_ids([&claimed]));
    }
    ensure!(
        buried == 1 && handed_out.is_empty(),
        COUNTED,
        "the next claim buries it and does not hand it out",
        "{buried} buried, {} handed out",
        list(handed_out.into_iter().map(name))
    );
    world.drains_exactly(&[]).await
}

/// Rule 4: the limit is the outbox's setting: with `max_strikes` 1 one death on a renewed solo claim is enough.
///
/// # Errors
/// The violation.
pub async fn max_strikes_is_the_outbox_s_setting<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings { max_strikes: 1, ..OutboxSettings::default() }).await?;
    let told = world.storage.guarantees().max_strikes;
    ensure!(told == 1, COUNTED, "`guarantees` tells the setting, 1", "{told}");
    let suspect = suspect(&world).await?;
    let solo = solo_of(&world, suspect).await?;
    world.storage.renew(&[solo.runs[0].token], LEASE).await?;
    world.advance(PAST_LEASE).await?;
    let buried = world.claim(10).await?.buried + world.claim_solo().await?.buried;
    ensure!(buried == 1, COUNTED, "it is buried by the next claim", "{buried} buried");
    Ok(())
}

/// Rule 4: an outcome clears the suspicion. A suspect that was retried is handed out to ordinary claims again, without
/// strikes, and one attempt is charged.
///
/// # Errors
/// The violation.
pub async fn an_outcome_clears_the_suspicion<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let suspect = suspect(&world).await?;
    let solo = solo_of(&world, suspect).await?;
    world.storage.renew(&[solo.runs[0].token], LEASE).await?;
    world.advance(PAST_LEASE).await?;
    let solo = solo_of(&world, suspect).await?;
    world.settle_all(&solo, &retry(Duration::ZERO)).await?;
    let ordinary = world.claim(10).await?;
    let entry = ordinary.entries.first();
    ensure!(
        entry.is_some_and(|entry| id(entry) == Some(suspect) && entry.strikes == 0 && entry.attempts == 1),
        COUNTED,
        format!("{} with 1 attempt and no strikes, for an ordinary claim", name(suspect)),
        "{entry:?}"
    );
    Ok(())
}

/// Rule 4: what was released or handed back was not sent, and proves nothing: a suspect stays one.
///
/// # Errors
/// The violation.
pub async fn a_released_suspect_stays_one<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let suspect = suspect(&world).await?;
    for hand_back in [false, true] {
        let solo = solo_of(&world, suspect).await?;
        if hand_back {
            let mut settlements = Settlements::new();
            settlements.hand_back(solo.runs[0].token, Duration::ZERO);
            world.settle(&settlements).await?;
        } else {
            world.settle_all(&solo, &release()).await?;
        }
        let ordinary = world.claim(10).await?;
        ensure!(
            ordinary.runs.is_empty() && ordinary.suspects > 0,
            COUNTED,
            "still only for a solo claim",
            "{}, {} suspects",
            list(claimed_ids([&ordinary]).into_iter().map(name)),
            ordinary.suspects
        );
    }
    Ok(())
}

/// Rule 4, F20: what a relay releases as it stops is claimable at once, by another, and nothing is charged.
///
/// # Errors
/// The violation.
pub async fn released_is_not_charged<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    given_back_is_not_charged(trial, false).await
}

/// Rule 4, F20 and F26: a run that is handed back whole is claimable at once, by another, and nothing is charged.
///
/// # Errors
/// The violation.
pub async fn hand_back_is_not_charged<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    given_back_is_not_charged(trial, true).await
}

async fn given_back_is_not_charged<H: StorageHarness>(
    trial: &Trial<H>,
    hand_back: bool,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(3, None);
    messages.extend(world.messages(3, Some("a")));
    world.enqueue(&messages).await?;
    let other = world.connect().await?;
    for _ in 0..4 {
        let claims = world.claim_everything(100).await?;
        let mut seen = Vec::new();
        for claimed in &claims {
            seen.extend(claimed_ids([claimed]));
            let mut call = settlements(claimed, |_| release());
            if hand_back {
                call.clear();
                claimed.runs.iter().for_each(|run| call.hand_back(run.token, Duration::ZERO));
            }
            world.settle_by(&other, &call).await?;
            for entry in &claimed.entries {
                ensure!(
                    entry.attempts == 0 && entry.strikes == 0,
                    COUNTED,
                    "no attempts and no strikes",
                    "{:?}: {} attempts, {} strikes",
                    id(entry).map(name),
                    entry.attempts,
                    entry.strikes
                );
            }
        }
        ensure!(
            !seen.is_empty(),
            COUNTED,
            "what was given back is handed out again at once",
            "nothing was handed out"
        );
    }
    world.drains_exactly(&messages).await
}

/// Rule 4: each retry charges one attempt, counted by the store over all handles; nothing else charges one.
///
/// # Errors
/// The violation.
pub async fn every_retry_is_counted<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for key in [None, Some("a")] {
        let world = trial.world(&OutboxSettings::default()).await?;
        world.enqueue(&world.messages(1, key)).await?;
        for attempts in 0..6 {
            let handle = world.connect().await?;
            let claimed = world.claim_by(&handle, world.ask(1)).await?;
            let charged = claimed.entries.first().map(|entry| entry.attempts);
            ensure!(charged == Some(attempts), COUNTED, format!("{attempts} attempts"), "{charged:?}");
            world.settle_all(&claimed, &retry(Duration::ZERO)).await?;
        }
    }
    Ok(())
}

/// Rule 4: attempts are not lost when a relay dies, nor by a hand-back.
///
/// # Errors
/// The violation.
pub async fn attempts_survive_a_crash<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    for _ in 0..2 {
        let claimed = world.claim(1).await?;
        world.settle_all(&claimed, &retry(Duration::ZERO)).await?;
    }
    let lost = world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    let taken = world.take_over(&world.storage, &lost).await?;
    let attempts = taken.entries.first().map(|entry| entry.attempts);
    ensure!(attempts == Some(2), COUNTED, "2 attempts", "{attempts:?}");
    Ok(())
}

struct Found {
    first_run: u32,
    deaths: u32,
    buried: u32,
}

/// Relays that claim and send until one dies on the deadly message, and the next takes over; until it is buried.
async fn kill_relays<S: TestStore>(
    world: &World<'_, S>,
    deadly: MessageId,
    limit: u32,
    delivered: &mut HashSet<MessageId>,
) -> Result<Found, Violation> {
    let mut found = Found { first_run: 0, deaths: 0, buried: 0 };
    for _ in 0..1_000 {
        let mut claimed = world.claim(limit).await?;
        found.buried += claimed.buried;
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claimed = world.claim_solo().await?;
            found.buried += claimed.buried;
            if let [run] = claimed.runs[..] {
                world.storage.renew(&[run.token], LEASE).await?;
            }
        }
        let fatal = claimed
            .runs
            .iter()
            .find(|run| claimed.entries_of(run).iter().any(|entry| id(entry) == Some(deadly)));
        if let Some(run) = fatal {
            found.deaths += 1;
            found.first_run = found.first_run.max(run.len);
            world.note("its relay dies".to_owned());
            world.advance(PAST_LEASE).await?;
            continue;
        }
        if claimed.runs.is_empty() {
            match claimed.next_due {
                Some(due) if due > claimed.now => world.advance(due.since(claimed.now)).await?,
                Some(_) => {}
                None if claimed.suspects == 0 => return Ok(found),
                None => {}
            }
            continue;
        }
        delivered.extend(claimed_ids([&claimed]));
        world.settle(&settlements(&claimed, verdict_for)).await?;
    }
    Ok(found)
}

/// Enqueues one message and makes it a suspect: its relay dies.
async fn suspect<S: TestStore>(world: &World<'_, S>) -> Result<MessageId, Violation> {
    let message = world.message(Some("a"));
    world.enqueue(std::slice::from_ref(&message)).await?;
    world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    Ok(message.id())
}

/// A solo claim that must get this suspect. The claim before it charges what the last holder left.
async fn solo_of<S: TestStore>(world: &World<'_, S>, suspect: MessageId) -> Result<Claimed, Violation> {
    world.claim(10).await?;
    let solo = world.claim_solo().await?;
    ensure!(
        claimed_ids([&solo]) == [suspect] && solo.runs.len() == 1,
        COUNTED,
        format!("a solo claim gets the suspect {}", name(suspect)),
        "{}",
        list(claimed_ids([&solo]).into_iter().map(name))
    );
    Ok(solo)
}
