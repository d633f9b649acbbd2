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
