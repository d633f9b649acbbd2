//! Every command in every state, as a table, and every world that few commands can lead to.

use super::{Command, Lease, Record, Rejected, State, Transition, step};
use crate::{Nonce, Text, Timestamp, Token, Verdict};
use std::collections::HashSet;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_millis(100_000);
const LEASE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(7);
const MAX_STRIKES: u32 = 3;
/// So few that a search of all worlds gets there.
const FEW_STRIKES: u32 = 2;

fn token(fence: u64) -> Token {
    Token { unit: 1, fence, nonce: Nonce::from_words(0, fence) }
}

fn claimed(until: Timestamp, run: u32, solo: bool, renewed: bool) -> Record {
    let claimed_at = until.before(LEASE);
    let lease = Lease { token: token(5), claimed_at, until, run, solo, renewed };
    Record { state: State::Claimed(lease), fence: 5, attempts: 2, ..Record::pending(claimed_at) }
}

fn settled(state: State) -> Record {
    Record { state, fence: 5, attempts: 2, settled: Some(token(5)), ..Record::pending(NOW) }
}

fn states() -> [(&'static str, Record); 11] {
    let suspect = Record { run_limit: 1, fence: 5, ..Record::pending(NOW) };
    [
        ("new", Record::pending(NOW)),
        ("scheduled", Record::pending(NOW.after(DELAY))),
        ("suspect", suspect),
        ("live", claimed(NOW.after(DELAY), 4, false, false)),
        ("expired", claimed(NOW, 4, false, true)),
        ("expired alone", claimed(NOW, 1, false, true)),
        ("expired solo", Record { strikes: 1, run_limit: 1, ..claimed(NOW, 1, true, true) }),
        ("last strike", Record { strikes: 2, run_limit: 1, ..claimed(NOW, 1, true, true) }),
        ("released", settled(State::Pending)),
        ("published", settled(State::Published)),
        ("dead", settled(State::Dead)),
    ]
}

fn verdicts() -> [Verdict; 4] {
    let text = Text::from_static("why");
    [
        Verdict::Published,
        Verdict::Retry { after: DELAY, error: text.clone() },
        Verdict::Release { after: DELAY },
        Verdict::Bury { reason: text },
    ]
}

fn with(token: Token, verdicts: &[Verdict; 4]) -> [Command<'_>; 6] {
    let [published, retry, release, bury] = verdicts;
    [
        Command::Renew { token, lease: LEASE },
        Command::Settle { token, verdict: published },
        Command::Settle { token, verdict: retry },
        Command::Settle { token, verdict: release },
        Command::Settle { token, verdict: bury },
        Command::HandBack { token, after: DELAY },
    ]
}

fn claim(fence: u64, run: u32, solo: bool) -> Command<'static> {
    Command::Claim { token: token(fence), lease: LEASE, run, solo }
}

fn outcome(record: &Record, command: &Command<'_>) -> String {
    let word = match step(record, command, NOW, MAX_STRIKES) {
        Ok(transition) => format!("{transition:?}"),
        Err(rejected) => format!("{rejected:?}"),
    };
    word.split('(').next().unwrap_or_default().to_owned()
}

#[test]
fn every_command_in_every_state() {
    // An ordinary claim, a solo claim; then with the record's token: renew, publish, retry, release, bury, hand back; then
    // redrive, discard.
    let current = "Renewed Published Retried Released Buried Released";
    let fenced = "Fenced Fenced Fenced Fenced Fenced Fenced";
    let repeated =
        "AlreadyApplied AlreadyApplied AlreadyApplied AlreadyApplied AlreadyApplied AlreadyApplied";
    let table = [
        ("new", "Claimed NotSuspect", fenced, "NotDead NotDead"),
        ("scheduled", "NotDue NotDue", fenced, "NotDead NotDead"),
        ("suspect", "Suspect Claimed", fenced, "NotDead NotDead"),
        ("live", "Held Held", current, "NotDead NotDead"),
        ("expired", "Claimed NotSuspect", current, "NotDead NotDead"),
        ("expired alone", "Struck Claimed", current, "NotDead NotDead"),
        ("expired solo", "Struck Claimed", current, "NotDead NotDead"),
        ("last strike", "Buried Buried", current, "NotDead NotDead"),
        ("released", "Claimed NotSuspect", repeated, "NotDead NotDead"),
        ("published", "Terminal Terminal", repeated, "NotDead NotDead"),
        ("dead", "Terminal Terminal", repeated, "Redriven Discarded"),
    ];
    let verdicts = verdicts();
    for ((name, record), (row, claims, tokens, mending)) in states().into_iter().zip(table) {
        assert_eq!(name, row);
        let mut commands = vec![claim(6, 1, false), claim(6, 1, true)];
        commands.extend(with(token(5), &verdicts));
        commands.extend([Command::Redrive, Command::Discard]);
        let expected = format!("{claims} {tokens} {mending}");
        let seen: Vec<String> = commands.iter().map(|command| outcome(&record, command)).collect();
        assert_eq!(seen.join(" "), expected, "{name}");
    }
}

#[test]
fn another_token_changes_nothing_in_any_state() {
    let verdicts = verdicts();
    let others = [
        Token { fence: 4, ..token(5) },
        Token { fence: 6, ..token(5) },
        Token { unit: 2, ..token(5) },
        Token { nonce: Nonce::from_words(9, 9), ..token(5) },
    ];
    for (name, record) in states() {
        for other in others {
            for command in with(other, &verdicts) {
                assert_eq!(outcome(&record, &command), "Fenced", "{name}: {command:?}");
            }
        }
    }
}

#[test]
fn a_claim_raises_the_fence_and_starts_the_lease() {
    let claimed = step(&Record::pending(NOW), &claim(1, 3, false), NOW, MAX_STRIKES).unwrap();
    let lease = claimed.record().and_then(Record::lease).copied().unwrap();
    assert_eq!((lease.claimed_at, lease.until, lease.run), (NOW, NOW.after(LEASE), 3));
    assert!(!lease.solo && !lease.renewed);
    assert_eq!(claimed.record().unwrap().fence, 1);
    for fence in 0..=5 {
        let late = step(&states()[4].1, &claim(fence, 1, false), NOW, MAX_STRIKES);
        assert_eq!(late, Err(Rejected::FenceNotRaised(5)));
    }
}

#[test]
fn a_run_that_died_comes_back_half_as_long() {
    for (run, half) in [(100, 50), (7, 3), (3, 1), (2, 1), (1, 1)] {
        let free = claimed(NOW, run, false, true).as_claimable(NOW, MAX_STRIKES).unwrap();
        assert_eq!((free.run_limit, free.strikes, free.attempts, free.due_at), (half, 0, 2, NOW));
    }
    let expired = claimed(NOW, 8, false, false);
    assert_eq!(step(&expired, &claim(6, 5, false), NOW, MAX_STRIKES), Err(Rejected::RunTooLong(4)));
    assert!(step(&expired, &claim(6, 4, false), NOW, MAX_STRIKES).is_ok());
}

#[test]
fn only_a_renewed_solo_claim_counts_as_a_strike() {
    for (solo, renewed, strikes) in [(false, false, 1), (false, true, 1), (true, false, 1), (true, true, 2)] {
        let record = Record { strikes: 1, run_limit: 1, ..claimed(NOW, 1, solo, renewed) };
        assert_eq!(record.as_claimable(NOW, MAX_STRIKES).unwrap().strikes, strikes, "{solo} {renewed}");
    }
}

#[test]
fn a_lease_ends_at_its_end_and_not_before() {
    let record = claimed(NOW, 4, false, false);
    let just_before = NOW.before(Duration::from_micros(1));
    assert_eq!(record.as_claimable(just_before, MAX_STRIKES), None);
    assert_eq!(step(&record, &claim(6, 1, false), just_before, MAX_STRIKES), Err(Rejected::Held(NOW)));
    assert!(record.as_claimable(NOW, MAX_STRIKES).is_some());
    let due = Record::pending(NOW);
    assert_eq!(step(&due, &claim(6, 1, false), just_before, MAX_STRIKES), Err(Rejected::NotDue(NOW)));
}

#[test]
fn a_renewal_never_shortens() {
    let record = claimed(NOW.after(DELAY), 4, false, false);
    for (lease, until) in [(Duration::ZERO, NOW.after(DELAY)), (LEASE, NOW.after(LEASE))] {
        let renewed = step(&record, &Command::Renew { token: token(5), lease }, NOW, MAX_STRIKES).unwrap();
        let lease = renewed.record().and_then(Record::lease).copied().unwrap();
        assert_eq!((lease.until, lease.renewed), (until, true));
    }
}

#[test]
fn what_a_settlement_charges_and_clears() {
    let held = Record { strikes: 2, run_limit: 1, ..claimed(NOW, 1, true, true) };
    // State, attempts, strikes, suspicion, due time.
    let table = [
        (State::Published, 2, 0, Record::UNLIMITED, held.due_at),
        (State::Pending, 3, 0, Record::UNLIMITED, NOW.after(DELAY)),
        (State::Pending, 2, 2, 1, NOW.after(DELAY)),
        (State::Dead, 2, 0, Record::UNLIMITED, held.due_at),
        (State::Pending, 2, 2, 1, NOW.after(DELAY)),
    ];
    let verdicts = verdicts();
    for (command, wanted) in with(token(5), &verdicts)[1..].iter().zip(table) {
        let after = *step(&held, command, NOW, MAX_STRIKES).unwrap().record().unwrap();
        let seen = (after.state, after.attempts, after.strikes, after.run_limit, after.due_at);
        assert_eq!(seen, wanted, "{command:?}");
        assert_eq!((after.settled, after.fence), (Some(token(5)), 5), "{command:?}");
    }
}

#[test]
fn attempts_do_not_overflow() {
    let held = Record { attempts: u32::MAX, ..claimed(NOW, 1, false, false) };
    let retry = Verdict::Retry { after: DELAY, error: Text::new() };
    let command = Command::Settle { token: token(5), verdict: &retry };
    assert_eq!(step(&held, &command, NOW, MAX_STRIKES).unwrap().record().unwrap().attempts, u32::MAX);
}

#[test]
fn a_redrive_resets_both_counters_and_keeps_the_fence() {
    let dead = Record { strikes: 3, run_limit: 1, ..settled(State::Dead) };
    let redriven = step(&dead, &Command::Redrive, NOW, MAX_STRIKES).unwrap();
    assert_eq!(redriven, Transition::Redriven(Record { fence: 5, ..Record::pending(NOW) }));
    assert_eq!(step(&dead, &Command::Discard, NOW, MAX_STRIKES).unwrap().record(), None);
}

#[test]
fn only_what_was_never_claimed_is_scheduled() {
    for (name, record) in states() {
        assert_eq!(record.is_scheduled(NOW), name == "scheduled", "{name}");
    }
    assert!(!Record { fence: 1, ..Record::pending(NOW.after(DELAY)) }.is_scheduled(NOW));
}

/// Every world that claims of two sizes, renewals, settlements by current and stale tokens, redrives and the clock lead to,
/// as far as four claims go.
#[test]
fn no_sequence_of_commands_breaks_a_promise() {
    let verdicts = verdicts();
    let start = (Record::pending(NOW), NOW);
    let (mut seen, mut open) = (HashSet::from([start]), vec![start]);
    while let Some((before, now)) = open.pop() {
        let mut commands = vec![Command::Redrive];
        for run in [1, 3] {
            commands.push(claim(before.fence + 1, run, false));
        }
        commands.push(claim(before.fence + 1, 1, true));
        for fence in 1..=before.fence {
            commands.extend(with(token(fence), &verdicts));
        }
        let mut next = vec![(before, now.after(LEASE))];
        for command in &commands {
            let transition = step(&before, command, now, FEW_STRIKES);
            if let Some(after) = transition.ok().as_ref().and_then(Transition::record) {
                promises(&before, command, after, now);
                next.push((*after, now));
            }
        }
        // Four claims, and a minute and a half.
        next.retain(|(record, now)| record.fence <= 4 && *now <= NOW.after(LEASE * 3));
        open.extend(next.into_iter().filter(|world| seen.insert(*world)));
    }
    assert!(seen.len() > 1_000, "only {} worlds", seen.len());
    let reached = |wanted: fn(&Record) -> bool| seen.iter().any(|(record, _)| wanted(record));
    assert!(reached(|record| record.state == State::Dead && record.strikes == FEW_STRIKES));
    assert!(reached(|record| record.attempts == 4));
    assert!(reached(|record| record.run_limit == 1 && record.state == State::Pending));
}

fn promises(before: &Record, command: &Command<'_>, after: &Record, now: Timestamp) {
    let world = format!("{before:?}\n{command:?}\n{after:?}");
    assert!(after.fence >= before.fence, "a fence never falls\n{world}");
    assert!(after.run_limit >= 1, "a run has one message at least\n{world}");
    let retried = matches!(command, Command::Settle { verdict: Verdict::Retry { .. }, .. });
    if *command != Command::Redrive {
        assert_eq!(after.attempts, before.attempts + u32::from(retried), "attempts\n{world}");
        let was_struck =
            before.lease().is_some_and(|lease| lease.solo && lease.renewed && lease.until <= now);
        assert!(after.strikes <= before.strikes + u32::from(was_struck), "strikes\n{world}");
        assert!(!matches!(before.state, State::Published | State::Dead), "terminal is terminal\n{world}");
    }
    if let Command::Claim { token, run, solo, .. } = command
        && let Some(lease) = after.lease()
    {
        assert_eq!((lease.token, after.fence), (*token, token.fence), "{world}");
        assert!(token.fence > before.fence, "a claim raises the fence\n{world}");
        assert!(before.due_at <= now, "due\n{world}");
        assert!(before.lease().is_none_or(|held| held.until <= now), "a live claim is not taken\n{world}");
        assert_eq!(after.is_suspect(), *solo, "suspects go to solo claims\n{world}");
        assert!(*run <= after.run_limit, "the length of the run\n{world}");
    }
    if let Command::Renew { .. } = command {
        let until = |record: &Record| record.lease().map(|lease| lease.until);
        assert!(until(after) >= until(before), "a renewal never shortens\n{world}");
    }
    if let Command::Settle { token, .. } | Command::HandBack { token, .. } = command {
        assert_eq!(after.settled, Some(*token), "the settled token is remembered\n{world}");
        assert!(after.lease().is_none(), "a settlement ends the claim\n{world}");
    }
    if after.state == State::Dead && after.strikes > 0 {
        assert!(after.strikes >= FEW_STRIKES, "nobody is buried below the limit\n{world}");
    }
}

#[test]
fn a_reason_names_the_figure_that_stands_in_the_way() {
    assert_eq!(Rejected::FenceNotRaised(41).to_string(), "the fence must rise above 41");
    assert_eq!(Rejected::RunTooLong(7).to_string(), "may be part of a run of at most 7");
}
