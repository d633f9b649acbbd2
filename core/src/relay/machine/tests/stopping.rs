//! A graceful end.

use super::*;

#[test]
fn a_stop_finishes_what_is_sent_gives_the_rest_back_and_claims_nothing_more() {
    let mut world = World::new();
    world.give(&[("north.1", Some("k")), ("north.2", Some("k")), ("north.3", None)]);
    let publish = world.take_publish();
    world.handle(Event::Shutdown);
    assert!(!world.machine.is_finished());
    world.confirm_all(publish);
    assert!(!world.publishes());
    assert_eq!(world.settle(Outcome::Applied), ["published, release, published"]);
    assert!(world.machine.is_finished());
    assert!(!world.claims());
}

#[test]
fn a_stop_awaits_or_repeats_an_open_claim_and_hands_its_runs_back() {
    let mut world = World::new();
    let claim = world.take_claim();
    world.handle(Event::Shutdown);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Err(error(ErrorKind::Unavailable)) });
    assert!(!world.machine.is_finished(), "the lost answer may hold runs");
    world.pass(SECOND);
    let repeated = world.take_claim();
    assert_eq!(repeated, claim);
    let (claimed, _) = one_run(&claim, &[("north", None), ("north", Some("k")), ("south", Some("k"))], 0);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    assert!(!world.publishes());
    assert_eq!(world.settle(Outcome::Applied), ["hand back"]);
    assert!(world.machine.is_finished());
}

#[test]
fn what_is_not_confirmed_within_the_grace_period_is_cut_off_uncharged() {
    let mut world = World::with(config().shutdown_grace(2 * SECOND), false);
    world.give(&[("north", None), ("north", None)]);
    let publish = world.take_publish();
    world.handle(Event::Shutdown);
    world.pass(2 * SECOND);
    assert!(world.has(|command| matches!(command, Command::CutOff { .. })));
    world.answer(publish, [Some(Ok(())), None]);
    assert_eq!(world.settle(Outcome::Applied), ["published, release"]);
    assert!(world.machine.is_finished());
}

#[test]
fn a_store_that_never_answers_does_not_hold_a_stop_for_ever() {
    let mut world = World::with(config().shutdown_grace(2 * SECOND), false);
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.confirm_all(publish);
    let _ = world.take_settle();
    world.handle(Event::Shutdown);
    world.pass(4 * SECOND);
    assert!(world.machine.is_finished());
    assert!(world.machine.take_failure().is_none());
}

#[test]
fn a_suspect_that_waits_for_its_renewal_is_given_back() {
    let mut world = World::new();
    let claim = world.take_claim();
    let claimed = Claimed { suspects: 1, ..Claimed::default() };
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let solo = world.take_claim();
    assert!(solo.solo);
    let (claimed, _) = one_run(&solo, &[("north", None)], 0);
    world.handle(Event::Claimed { nonce: solo.nonce, result: Ok(claimed) });
    world.take_renewal();
    world.handle(Event::Shutdown);
    assert_eq!(world.settle(Outcome::Applied), ["hand back"]);
    assert!(world.machine.is_finished());
}

#[test]
fn an_open_nonce_is_answered_once() {
    let mut world = World::new();
    world.handle(Event::Claimed { nonce: Nonce::from_words(9, 9), result: Ok(Claimed::default()) });
    assert!(world.claims(), "an answer to no question changes nothing");
}

#[test]
fn a_store_that_refuses_the_relay_ends_it_after_one_call() {
    let mut world = World::new();
    let mut calls = 0;
    for _ in 0..100 {
        while world.claims() && calls < 100 {
            calls += 1;
            let claim = world.take_claim();
            world.handle(Event::Claimed { nonce: claim.nonce, result: Err(error(ErrorKind::Misconfigured)) });
        }
        world.pass(Duration::from_millis(10));
    }
    assert_eq!(calls, 1, "and not until its shutdown gives up");
    assert!(world.machine.is_finished());
    assert!(world.machine.take_failure().is_some());
}

#[test]
fn a_stop_reports_at_once_even_while_the_store_is_left_alone() {
    let mut world = World::with(config().shutdown_grace(2 * SECOND), false);
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.confirm_all(publish);
    let (ticket, settlements) = world.take_settle();
    let lost = || Err(error(ErrorKind::Unavailable));
    world.handle(Event::Settled { ticket, settlements, result: lost() });
    for _ in 0..10 {
        world.pass(8 * SECOND);
        let (ticket, settlements) = world.take_settle();
        world.handle(Event::Settled { ticket, settlements, result: lost() });
    }
    world.handle(Event::Shutdown);
    let (ticket, settlements) = world.take_settle();
    world.handle(Event::Settled { ticket, settlements, result: lost() });
    assert!(!world.machine.is_finished());
    world.pass(SECOND);
    assert_eq!(world.settle(Outcome::Applied), ["published"], "and soon again, since the time is short");
    world.give_nothing();
    assert!(world.machine.is_finished());
}
