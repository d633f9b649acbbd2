//! Rules 3 and 10: tokens, renewals and repeated claims.

use crate::storage::rule::{CANCEL, FENCING, STORE_CLOCK, TERMINAL, ensure};
use crate::storage::world::{
    LEASE, PAST_LEASE, bury, claimed_ids, holds, one, release, retry, settlements, tokens,
};
use crate::storage::{OutboxSettings, StorageHarness, Trial, Violation};
use pillarbox_core::{Claimed, Nonce, Outcome, Run, Settlements, Storage as _, Token, Verdict};
use std::time::Duration;

/// Rule 3, F3: a holder that comes back after its lease, when another has taken its message, changes nothing, whichever
/// way it settles.
///
/// # Errors
/// The violation.
pub async fn stale_settle_is_fenced<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let ways = [Verdict::Published, retry(Duration::from_secs(5)), release(), bury()];
    for way in ways.into_iter().map(Some).chain([None]) {
        let world = trial.world(&OutboxSettings::default()).await?;
        let messages = world.messages(4, Some("a"));
        world.enqueue(&messages).await?;
        let other = world.connect().await?;
        let first = world.claim(4).await?;
        world.advance(PAST_LEASE).await?;
        let second = world.take_over(&other, &first).await?;
        let taken = claimed_ids([&second]);
        let stale = settle_as(overtaken(&first, &second), way.as_ref());
        let way = words(way.as_ref());
        for answer in world.settle(&stale).await? {
            ensure!(
                answer.outcome == Outcome::Fenced,
                FENCING,
                format!("to {way} with a token that another claim has overtaken is `Fenced`"),
                "{:?}",
                answer.outcome
            );
        }
        for answer in world.settle_by(&other, &settlements(&second, |_| Verdict::Published)).await? {
            ensure!(
                answer.outcome == Outcome::Applied,
                FENCING,
                format!("the later holder is not affected when the earlier one says {way}"),
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

const fn words(way: Option<&Verdict>) -> &'static str {
    match way {
        Some(Verdict::Published) => "publish",
        Some(Verdict::Retry { .. }) => "retry",
        Some(Verdict::Release { .. }) => "release",
        Some(Verdict::Bury { .. }) => "bury",
        None => "hand back",
    }
}

/// Rules 3 and 7, F4: the later holder has published and removed the message; whatever the zombie says then, it does not
/// come back.
///
/// # Errors
/// The violation.
pub async fn zombie_resurrects_nothing<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for way in [Some(retry(Duration::ZERO)), Some(release()), Some(bury()), None] {
        let world = trial.world(&OutboxSettings::default()).await?;
        world.enqueue(&world.messages(1, Some("a"))).await?;
        let first = world.claim(1).await?;
        world.advance(PAST_LEASE).await?;
        world.drain().await?;
        for answer in world.settle(&settle_as(first.runs.iter().copied(), way.as_ref())).await? {
            ensure!(
                answer.outcome == Outcome::Fenced,
                FENCING,
                "`Fenced`: another claim has published it",
                "{:?}",
                answer.outcome
            );
        }
        let back = world.drain().await?;
        ensure!(back.is_empty(), TERMINAL, "nothing comes back", "{back:?}");
    }
    Ok(())
}

/// Rule 3, F3: a renewal with a token that another claim has overtaken is fenced, and takes nothing from the later holder.
///
/// # Errors
/// The violation.
pub async fn stale_renew_is_fenced<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(4, Some("a"))).await?;
    let other = world.connect().await?;
    let first = world.claim(4).await?;
    world.advance(PAST_LEASE).await?;
    let second = world.take_over(&other, &first).await?;
    let stale: Vec<Token> = overtaken(&first, &second).map(|run| run.token).collect();
    for answer in world.storage.renew(&stale, LEASE).await? {
        ensure!(
            answer.outcome == Outcome::Fenced && answer.lease_until.is_none(),
            FENCING,
            "`Fenced`, without a lease",
            "{answer:?}"
        );
    }
    all(&world.settle_all(&second, &Verdict::Published).await?, Outcome::Applied, "the later holder settles")
}

/// Rule 3: expiry alone changes nothing. A lease that ran out and that nobody has taken can still be settled.
///
/// # Errors
/// The violation.
pub async fn expired_but_untaken_claim_still_settles<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    let claimed = world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    let answers = world.settle_all(&claimed, &Verdict::Published).await?;
    all(&answers, Outcome::Applied, "a lease that ran out untaken is settled")?;
    world.drains_exactly(&[]).await
}

/// Rule 3: expiry alone changes nothing. A lease that ran out and that nobody has taken can be renewed, and holds then.
///
/// # Errors
/// The violation.
pub async fn expired_but_untaken_claim_still_renews<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, Some("a"))).await?;
    let claimed = world.claim(1).await?;
    world.advance(PAST_LEASE).await?;
    for answer in world.storage.renew(&tokens(&claimed), LEASE).await? {
        ensure!(answer.outcome == Outcome::Applied, FENCING, "`Applied`", "{answer:?}");
    }
    let other = world.claim_by(&world.connect().await?, world.ask(1)).await?;
    ensure!(other.runs.is_empty(), FENCING, "the renewed lease is live", "{:?} was handed out", other.runs);
    all(
        &world.settle_all(&claimed, &Verdict::Published).await?,
        Outcome::Applied,
        "the renewed run is settled",
    )
}

/// Rule 3: a renewal prolongs the lease to the asked time from now, on the store's clock.
///
/// # Errors
/// The violation.
pub async fn renew_prolongs<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(2, Some("a"))).await?;
    let claimed = world.claim(2).await?;
    for _ in 0..3 {
        world.advance(LEASE / 2).await?;
        for answer in world.storage.renew(&tokens(&claimed), LEASE).await? {
            ensure!(
                answer.outcome == Outcome::Applied && answer.lease_until == Some(answer.at.after(LEASE)),
                STORE_CLOCK,
                format!("`Applied`, until {LEASE:?} after the time of the answer"),
                "{answer:?}"
            );
        }
    }
    let other = world.claim_by(&world.connect().await?, world.ask(2)).await?;
    ensure!(
        other.runs.is_empty(),
        FENCING,
        "one and a half leases after the claim its renewals keep it",
        "{:?} was handed out",
        other.runs
    );
    all(
        &world.settle_all(&claimed, &Verdict::Published).await?,
        Outcome::Applied,
        "the renewed run is settled",
    )
}

/// Rule 3: a renewal never shortens a lease.
///
/// # Errors
/// The violation.
pub async fn renew_never_shortens<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(1, None)).await?;
    let claimed = world.claim(1).await?;
    let until = claimed.runs.iter().map(|run| run.lease_until).max();
    for short in [Duration::ZERO, Duration::from_secs(1)] {
        for answer in world.storage.renew(&tokens(&claimed), short).await? {
            ensure!(
                answer.outcome == Outcome::Applied && answer.lease_until >= until,
                FENCING,
                format!("a lease until {until:?} or later"),
                "{answer:?}"
            );
        }
    }
    world.advance(LEASE / 2).await?;
    let other = world.claim_by(&world.connect().await?, world.ask(1)).await?;
    ensure!(
        other.runs.is_empty() || until.is_some_and(|until| until <= other.now),
        FENCING,
        "the lease still lasts",
        "{:?} was handed out",
        other.runs
    );
    Ok(())
}

/// Rule 3, F32: a store that lost its last writes repeats fences, so the nonce is compared too: with another's nonce a
/// token changes nothing.
///
/// # Errors
/// The violation.
pub async fn nonce_is_compared_beside_the_fence<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(3, Some("a"));
    world.enqueue(&messages).await?;
    let claimed = world.claim(3).await?;
    let stranger = Nonce::from_words(7, 7);
    for run in &claimed.runs {
        let forged = Token { nonce: stranger, ..run.token };
        let renewed = one(world.storage.renew(&[forged], LEASE).await?)?;
        ensure!(renewed.outcome == Outcome::Fenced, FENCING, "a renewal is `Fenced`", "{renewed:?}");
        let verdicts = vec![Verdict::Published; run.len as usize];
        let settled = world.settle_run(&world.storage, forged, verdicts).await?;
        ensure!(settled.outcome == Outcome::Fenced, FENCING, "a settlement is `Fenced`", "{settled:?}");
        let other_fence = Token { fence: run.token.fence + 1, ..run.token };
        let settled =
            world.settle_run(&world.storage, other_fence, vec![release(); run.len as usize]).await?;
        ensure!(settled.outcome == Outcome::Fenced, FENCING, "another fence is `Fenced`", "{settled:?}");
    }
    all(&world.settle_all(&claimed, &Verdict::Published).await?, Outcome::Applied, "the holder settles")?;
    let delivered = claimed_ids([&claimed]);
    let rest: Vec<_> = messages.into_iter().filter(|message| !delivered.contains(&message.id())).collect();
    world.drains_exactly(&rest).await
}

/// Rule 3: a token that this store never gave is fenced, whatever its numbers.
///
/// # Errors
/// The violation.
pub async fn unknown_token_is_fenced<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    for unit in [0, 1, 12_345, u64::MAX] {
        for fence in [0, 1, u64::MAX] {
            let token = Token { unit, fence, nonce: Nonce::from_words(unit, fence) };
            let renewed = one(world.storage.renew(&[token], LEASE).await?)?;
            ensure!(renewed.outcome == Outcome::Fenced, FENCING, "a renewal is `Fenced`", "{renewed:?}");
            let settled = world.settle_run(&world.storage, token, vec![Verdict::Published]).await?;
            ensure!(settled.outcome == Outcome::Fenced, FENCING, "a settlement is `Fenced`", "{settled:?}");
        }
    }
    world.drains_exactly(&[]).await
}

/// Rules 3 and 9, F3: one stale token fails no batch: the others of the call are settled and renewed.
///
/// # Errors
/// The violation.
pub async fn one_stale_token_fails_no_batch<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(3, None);
    world.enqueue(&messages).await?;
    let claimed = world.claim(3).await?;
    let unknown = Token { unit: 99, fence: 99, nonce: Nonce::from_words(9, 9) };
    let mut asked = vec![unknown];
    asked.extend(tokens(&claimed));
    asked.push(unknown);
    let expected = |index: usize| match index == 0 || index == asked.len() - 1 {
        true => Outcome::Fenced,
        false => Outcome::Applied,
    };
    for (index, answer) in world.storage.renew(&asked, LEASE).await?.into_iter().enumerate() {
        ensure!(
            answer.outcome == expected(index),
            FENCING,
            format!("the renewal of token {index} is {:?}", expected(index)),
            "{answer:?}"
        );
    }
    let mut call = Settlements::new();
    call.verdicts(unknown, [Verdict::Published]);
    for run in &claimed.runs {
        call.verdicts(run.token, vec![Verdict::Published; run.len as usize]);
    }
    call.hand_back(unknown, Duration::ZERO);
    for (index, answer) in world.settle(&call).await?.into_iter().enumerate() {
        ensure!(
            answer.outcome == expected(index),
            FENCING,
            format!("the settlement of token {index} is {:?}", expected(index)),
            "{answer:?}"
        );
    }
    let delivered = claimed_ids([&claimed]);
    let rest: Vec<_> = messages.into_iter().filter(|message| !delivered.contains(&message.id())).collect();
    world.drains_exactly(&rest).await
}

/// Rules 3 and 9: a settlement that is repeated is answered `AlreadyApplied`, or `Fenced` where the store has forgotten it,
/// and changes nothing: also not when another holds the message by then.
///
/// # Errors
/// The violation.
pub async fn repeated_settle_is_already_applied_or_fenced<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    for way in [Some(Verdict::Published), Some(retry(Duration::ZERO)), Some(release()), Some(bury()), None] {
        let world = trial.world(&OutboxSettings::default()).await?;
        world.enqueue(&world.messages(1, Some("a"))).await?;
        let claimed = world.claim(1).await?;
        let call = settle_as(claimed.runs.iter().copied(), way.as_ref());
        all(&world.settle(&call).await?, Outcome::Applied, "the first settlement")?;
        for answer in world.settle(&call).await? {
            ensure!(
                answer.outcome != Outcome::Applied,
                FENCING,
                "a settlement that is repeated at once is `AlreadyApplied` or `Fenced`",
                "{answer:?}"
            );
        }
        for answer in world.storage.renew(&tokens(&claimed), LEASE).await? {
            ensure!(
                answer.outcome != Outcome::Applied,
                FENCING,
                "the renewal of a settled run changes nothing",
                "{answer:?}"
            );
        }
        let second = world.claim(1).await?;
        for answer in world.settle(&call).await? {
            ensure!(
                answer.outcome != Outcome::Applied,
                FENCING,
                "`AlreadyApplied` or `Fenced`, also while another claim holds the message",
                "{answer:?}"
            );
        }
        for (run, entry) in second.runs.iter().zip(&second.entries) {
            let wanted = u32::from(matches!(way, Some(Verdict::Retry { .. })));
            ensure!(entry.attempts == wanted, FENCING, format!("{wanted} attempts"), "{}", entry.attempts);
            let settled = world.settle_run(&world.storage, run.token, vec![Verdict::Published]).await?;
            ensure!(settled.outcome == Outcome::Applied, FENCING, "the later holder settles", "{settled:?}");
        }
    }
    Ok(())
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
    // By another handle: the connection may have been what was lost.
    let again = world.claim_by(&world.connect().await?, ask).await?;
    let (mut before, mut after) = (tokens(&first), tokens(&again));
    before.sort_unstable();
    after.sort_unstable();
    ensure!(before == after, CANCEL, format!("the same tokens, {before:?}"), "{after:?}");
    for run in &first.runs {
        let same = again.runs.iter().find(|other| other.token == run.token);
        let same_entries = same.map(|same| claimed_entries(&again, same) == claimed_entries(&first, run));
        ensure!(same_entries == Some(true), CANCEL, "the same messages in the same order", "{again:?}");
    }
    let charged = again.entries.iter().filter(|entry| entry.attempts + entry.strikes > 0).count();
    ensure!(charged == 0, CANCEL, "no attempt and no strike", "{charged} entries were charged");
    all(
        &world.settle_all(&again, &Verdict::Published).await?,
        Outcome::Applied,
        "the repeated runs are settled",
    )?;
    let delivered = claimed_ids([&first]);
    let rest: Vec<_> = messages.into_iter().filter(|message| !delivered.contains(&message.id())).collect();
    world.drains_exactly(&rest).await
}

/// Rule 10, F35: of a repeated claim only what is still live is answered; a run that was settled meanwhile is not.
///
/// # Errors
/// The violation.
pub async fn repeated_claim_does_not_answer_settled_runs<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(3, Some("a"))).await?;
    let ask = world.ask(100);
    let first = world.claim_by(&world.storage, ask).await?;
    world.settle_all(&first, &Verdict::Published).await?;
    let again = world.claim_by(&world.storage, ask).await?;
    let repeated = claimed_ids([&again]).into_iter().any(|id| claimed_ids([&first]).contains(&id));
    ensure!(!repeated, TERMINAL, "nothing that was settled", "{:?}", again.runs);
    Ok(())
}

/// Rules 3 and 10: a claim that is repeated after its leases ran out gets new tokens; the old ones are fenced.
///
/// # Errors
/// The violation.
pub async fn claim_repeated_after_its_lease_is_a_new_claim<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    world.enqueue(&world.messages(4, Some("a"))).await?;
    let ask = world.ask(100);
    let first = world.claim_by(&world.storage, ask).await?;
    world.advance(PAST_LEASE).await?;
    let again = world.claim_by(&world.storage, ask).await?;
    for run in &again.runs {
        ensure!(
            !tokens(&first).contains(&run.token),
            FENCING,
            "a token with a higher fence",
            "{:?} again, whose lease has run out",
            run.token
        );
    }
    let stale: Vec<Run> = overtaken(&first, &again).collect();
    let answers = world.settle(&settle_as(stale.into_iter(), Some(&Verdict::Published))).await?;
    all(&answers, Outcome::Fenced, "a token from before the lease ran out")
}

/// The runs of `first` with a message that `second` has taken.
fn overtaken<'a>(first: &'a Claimed, second: &Claimed) -> impl Iterator<Item = Run> + 'a {
    let taken = claimed_ids([second]);
    first.runs.iter().filter(move |run| taken.iter().any(|id| holds(first, run, *id))).copied()
}

/// One verdict for everything, or a hand-back.
fn settle_as(runs: impl Iterator<Item = Run>, way: Option<&Verdict>) -> Settlements {
    let mut settlements = Settlements::new();
    for run in runs {
        match way {
            Some(Verdict::Retry { .. }) => {
                let released = vec![release(); run.len as usize - 1];
                settlements.verdicts(run.token, way.cloned().into_iter().chain(released));
            }
            Some(verdict) => settlements.verdicts(run.token, vec![verdict.clone(); run.len as usize]),
            None => settlements.hand_back(run.token, Duration::ZERO),
        }
    }
    settlements
}

fn claimed_entries(claimed: &Claimed, run: &Run) -> Vec<Option<pillarbox_core::MessageId>> {
    claimed.entries_of(run).iter().map(crate::storage::world::id).collect()
}

fn all(answers: &[pillarbox_core::Settled], wanted: Outcome, what: &str) -> Result<(), Violation> {
    for answer in answers {
        ensure!(answer.outcome == wanted, FENCING, format!("{what}: `{wanted:?}`"), "{answer:?}");
    }
    Ok(())
}
