//! Rules 7, 8 and 9: what a settlement touches, and what is over.

use crate::storage::rule::{ANSWERS, KEY_ORDER, NO_LOSS, TERMINAL, ensure};
use crate::storage::world::{
    PAST_LEASE, bury, claimed_ids, id, ids, list, name, release, retry, settlements, tokens, verdict_for,
};
use crate::storage::{OutboxSettings, StorageHarness, TestStore as _, Trial, Violation};
use pillarbox_core::{Content, ErrorKind, HeadPolicy, Outcome, Settlements, Storage as _, Verdict};
use std::time::Duration;

/// Rule 9: one answer per token, in order, for renewals and settlements; none for none.
///
/// # Errors
/// The violation.
pub async fn answers_match_questions<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let renewed = world.storage.renew(&[], PAST_LEASE).await?.len();
    let settled = world.storage.settle(&Settlements::new()).await?.len();
    ensure!(renewed + settled == 0, ANSWERS, "no answers to no questions", "{renewed} and {settled}");
    world.enqueue(&world.messages(6, None)).await?;
    let mut claims = Vec::new();
    for _ in 0..6 {
        claims.push(world.claim(1).await?);
    }
    let mut asked: Vec<_> = claims.iter().flat_map(tokens).collect();
    asked.reverse();
    let renewed = world.storage.renew(&asked, PAST_LEASE).await?;
    ensure!(
        renewed.len() == asked.len() && renewed.iter().all(|answer| answer.outcome == Outcome::Applied),
        ANSWERS,
        format!("{} answers", asked.len()),
        "{renewed:?}"
    );
    let mut call = Settlements::new();
    // Settled twice in one call: the second changes nothing.
    for token in asked.iter().chain(&asked) {
        call.verdicts(*token, [Verdict::Published]);
    }
    let settled = world.settle(&call).await?;
    let applied: Vec<_> = settled.iter().map(|answer| answer.outcome == Outcome::Applied).collect();
    let mut wanted = vec![true; asked.len()];
    wanted.extend(vec![false; asked.len()]);
    ensure!(
        applied == wanted,
        ANSWERS,
        "each run is settled by its first settlement and not again by its second",
        "{settled:?}"
    );
    Ok(())
}

/// Rule 9, F23: a settlement touches exactly the runs whose tokens it names.
///
/// # Errors
/// The violation.
pub async fn settle_touches_exactly_the_given_tokens<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages: Vec<_> =
        ["a", "b", "c", "d", "e", "f"].iter().map(|key| world.message(Some(key))).collect();
    world.enqueue(&messages).await?;
    let mut claims = Vec::new();
    for _ in 0..messages.len() {
        claims.extend(Some(world.claim(1).await?).filter(|claimed| !claimed.runs.is_empty()));
    }
    let mut published = Vec::new();
    for claimed in claims.iter().step_by(2) {
        published.extend(claimed_ids([claimed]));
        world.settle_all(claimed, &Verdict::Published).await?;
    }
    world.advance(PAST_LEASE).await?;
    let rest: Vec<_> = messages.into_iter().filter(|message| !published.contains(&message.id())).collect();
    world.drains_exactly(&rest).await
}

/// Rule 9: verdicts in another number than the run has messages are `Rejected`, and nothing in that call is changed.
///
/// # Errors
/// The violation.
pub async fn wrong_number_of_verdicts_is_rejected_and_changes_nothing<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    let claimed = world.claim(3).await?;
    let run = claimed.runs[0];
    for wrong in [0, run.len as usize - 1, run.len as usize + 1] {
        let mut call = Settlements::new();
        call.verdicts(run.token, vec![Verdict::Published; wrong]);
        rejected(&world.storage.settle(&call).await, &format!("{wrong} verdicts for {} messages", run.len))?;
    }
    let answers = world.settle_all(&claimed, &Verdict::Published).await?;
    ensure!(
        answers.iter().all(|answer| answer.outcome == Outcome::Applied),
        ANSWERS,
        "the run is still held and can be settled",
        "{answers:?}"
    );
    let delivered = claimed_ids([&claimed]);
    let rest: Vec<_> = messages.into_iter().filter(|message| !delivered.contains(&message.id())).collect();
    world.drains_exactly(&rest).await
}

/// Rules 5 and 9: verdicts of one key in another shape (settled ones, one retry, then only releases) are `Rejected`, and
/// nothing is changed: they would reorder the key. Under `Block` a burial ends the settled ones as a retry does.
///
/// # Errors
/// The violation.
pub async fn verdicts_that_reorder_a_key_are_rejected<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let later = || Verdict::Release { after: Duration::from_secs(60) };
    let soon = || retry(Duration::from_secs(60));
    let mut shapes = vec![
        (HeadPolicy::Continue, [release(), Verdict::Published, Verdict::Published]),
        (HeadPolicy::Continue, [soon(), Verdict::Published, release()]),
        (HeadPolicy::Continue, [soon(), soon(), release()]),
        (HeadPolicy::Continue, [later(), bury(), release()]),
        (HeadPolicy::Continue, [Verdict::Published, release(), soon()]),
    ];
    shapes.push((HeadPolicy::Block, [bury(), Verdict::Published, Verdict::Published]));
    for (head_policy, shape) in shapes {
        let world = trial.world(&OutboxSettings { head_policy, ..OutboxSettings::default() }).await?;
        let messages = world.messages(3, Some("a"));
        world.enqueue(&messages).await?;
        let claimed = world.claim(3).await?;
        let [run] = claimed.runs[..] else { continue };
        if run.len != 3 {
            continue;
        }
        let mut call = Settlements::new();
        call.verdicts(run.token, shape.clone());
        rejected(&world.storage.settle(&call).await, &format!("{shape:?} for three messages of one key"))?;
        world.settle_all(&claimed, &release()).await?;
        let delivered = world.drain().await?;
        ensure!(
            delivered == ids(&messages),
            KEY_ORDER,
            "nothing was changed",
            "{}",
            list(delivered.into_iter().map(name))
        );
    }
    Ok(())
}

/// Rule 7, F5: a published message is never claimed again, however far the clock moves on.
///
/// # Errors
/// The violation.
pub async fn published_is_never_claimed_again<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(3, None);
    messages.extend(world.messages(3, Some("a")));
    world.enqueue(&messages).await?;
    world.drains_exactly(&messages).await?;
    world.advance(Duration::from_secs(400 * 24 * 3600)).await?;
    let again = world.drain().await?;
    ensure!(again.is_empty(), TERMINAL, "nothing", "{}", list(again.into_iter().map(name)));
    Ok(())
}

/// Rules 7 and 8, F5 and F19: a dead letter is never claimed again, and is still there however far the clock moves on.
///
/// # Errors
/// The violation.
pub async fn dead_is_never_claimed_again<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&[world.message(None), world.message(Some("a"))]).await?;
    for claimed in world.claim_everything(10).await? {
        world.settle_all(&claimed, &bury()).await?;
    }
    world.advance(Duration::from_secs(400 * 24 * 3600)).await?;
    let again = world.drain().await?;
    ensure!(again.is_empty(), TERMINAL, "nothing", "{}", list(again.into_iter().map(name)));
    if let Some(admin) = world.storage.admin() {
        let dead = admin.stats().await?.dead;
        ensure!(dead == 2, NO_LOSS, "two dead letters", "{dead}");
    }
    Ok(())
}

/// Rule 8: what waits is not removed, however long: pending, scheduled, claimed and retried messages are all delivered after
/// a year.
///
/// # Errors
/// The violation.
pub async fn nothing_expires<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let claimed_then_lost = world.messages(2, Some("a"));
    world.enqueue(&claimed_then_lost).await?;
    world.claim(10).await?;
    let retried = world.messages(2, None);
    world.enqueue(&retried).await?;
    let claimed = world.claim(10).await?;
    world.settle_all(&claimed, &retry(Duration::from_secs(5))).await?;
    let later = world.now().await?.after(Duration::from_secs(200 * 24 * 3600));
    let scheduled = [world.message_due(None, Some(later)), world.message_due(Some("b"), Some(later))];
    world.enqueue(&scheduled).await?;
    let pending = world.messages(2, Some("c"));
    world.enqueue(&pending).await?;
    world.advance(Duration::from_secs(400 * 24 * 3600)).await?;
    world.drains_exactly(&[&claimed_then_lost[..], &retried, &scheduled, &pending].concat()).await
}

/// F8: a record that is no message stops nobody: it is handed out as undecodable, buried with its reason, and the good ones
/// around it are delivered.
///
/// # Errors
/// The violation.
pub async fn undecodable_record_does_not_stop_the_batch<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let mut messages = world.messages(3, None);
    messages.extend(world.messages(3, Some("a")));
    world.enqueue(&messages).await?;
    world.store.corrupt().await?;
    let after = [world.message(None), world.message(Some("a"))];
    world.enqueue(&after).await?;
    messages.extend(after);
    let (mut delivered, mut undecodable) = (Vec::new(), 0);
    for _ in 0..20 {
        let claimed = world.claim(100).await?;
        for entry in &claimed.entries {
            match &entry.content {
                Content::Message(message) => delivered.push(message.id()),
                Content::Undecodable(record) => {
                    undecodable += 1;
                    ensure!(!record.reason.is_empty(), NO_LOSS, "a reason why it is no message", "none");
                }
            }
        }
        world.settle(&settlements(&claimed, verdict_for)).await?;
    }
    let mut wanted = ids(&messages);
    wanted.sort_unstable();
    delivered.sort_unstable();
    ensure!(
        undecodable == 1 && delivered == wanted,
        NO_LOSS,
        "all good messages, and the bad record once",
        "{undecodable} bad records, {}",
        list(delivered.into_iter().map(name))
    );
    if let Some(admin) = world.storage.admin() {
        let dead = admin.stats().await?.dead;
        ensure!(dead == 1, NO_LOSS, "the bad record is a dead letter", "{dead} dead letters");
    }
    Ok(())
}

/// Rule 9: verdicts of one run are applied to their messages, each to its own.
///
/// # Errors
/// The violation.
pub async fn verdicts_meet_their_messages<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(8, None);
    world.enqueue(&messages).await?;
    let claims = world.claim_everything(100).await?;
    let of = |entry: &pillarbox_core::Entry| {
        let at = messages.iter().position(|message| Some(message.id()) == id(entry)).unwrap_or(0);
        match at % 4 {
            0 => Verdict::Published,
            1 => retry(Duration::ZERO),
            2 => release(),
            _ => bury(),
        }
    };
    for claimed in &claims {
        world.settle(&settlements(claimed, of)).await?;
    }
    let mut seen = Vec::new();
    for claimed in world.claim_everything(100).await? {
        seen.extend(claimed.entries.iter().map(|entry| (id(entry), entry.attempts)));
    }
    seen.sort_unstable();
    let wanted: Vec<_> = [(1, 1), (2, 0), (5, 1), (6, 0)]
        .iter()
        .map(|(at, attempts)| (Some(messages[*at].id()), *attempts))
        .collect();
    ensure!(
        seen == wanted,
        ANSWERS,
        "the retried ones with one attempt and the released ones with none",
        "{}",
        list(seen.into_iter().map(|(id, attempts)| format!("{:?}×{attempts}", id.map(name))))
    );
    Ok(())
}

fn rejected(
    answer: &Result<Vec<pillarbox_core::Settled>, pillarbox_core::Error>,
    what: &str,
) -> Result<(), Violation> {
    ensure!(
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Rejected),
        ANSWERS,
        format!("{what}: an error of the kind `Rejected`"),
        "{answer:?}"
    );
    Ok(())
}
