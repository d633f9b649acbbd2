//! Claims, leases and settles: what the relay owes the store.

use super::*;

#[test]
fn a_claim_whose_answer_was_lost_is_repeated_with_its_nonce_until_its_lease_has_passed() {
    let mut world = World::new();
    let first = world.take_claim();
    let mut last = first;
    let lose = |world: &mut World, claim: Claim| {
        world.handle(Event::Claimed { nonce: claim.nonce, result: Err(error(ErrorKind::Unavailable)) });
    };
    while world.now < Moment::ORIGIN.after(25 * SECOND) {
        lose(&mut world, last);
        world.pass(8 * SECOND);
        last = world.take_claim();
        if world.now < Moment::ORIGIN.after(30 * SECOND) {
            assert_eq!(last, first);
        }
    }
    world.pass(30 * SECOND);
    lose(&mut world, last);
    world.pass(8 * SECOND);
    assert_ne!(world.take_claim().nonce, first.nonce);
}

#[test]
fn a_store_that_is_down_for_an_hour_is_asked_a_bounded_number_of_times() {
    let mut world = World::new();
    let mut calls = 0;
    for _ in 0..3_600 {
        while world.claims() {
            calls += 1;
            let claim = world.take_claim();
            world.handle(Event::Claimed { nonce: claim.nonce, result: Err(error(ErrorKind::Unavailable)) });
        }
        world.handle(Event::Hint);
        world.pass(SECOND);
    }
    assert!((400..1_500).contains(&calls), "with 0.5 to 8 s between them: {calls}");
    let claim = world.take_claim_in_time();
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(Claimed::default()) });
    assert_eq!(world.heard("StoreRecovered"), 1);
}

#[test]
fn an_idle_relay_polls_listens_and_knows_what_is_due() {
    let mut world = World::new();
    world.give_nothing();
    assert!(!world.claims());
    world.pass(SECOND);
    assert!(world.claims(), "within the polling interval");
    world.give_nothing();
    world.handle(Event::Hint);
    assert!(world.claims(), "at once on a hint");
    let claim = world.take_claim();
    world.handle(Event::Hint);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(Claimed::default()) });
    assert!(world.claims(), "the claim on its way may have missed what the hint is about");
    let claim = world.take_claim();
    let next_due = Some(Timestamp::EPOCH.after(Duration::from_millis(300)));
    let claimed = Claimed { next_due, ..Claimed::default() };
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    world.pass(Duration::from_millis(299));
    assert!(!world.claims());
    world.pass(Duration::from_millis(2));
    assert!(world.claims(), "when the next message is due");
}

#[test]
fn a_claim_that_a_settlement_overtakes_is_followed_by_another() {
    let mut world = World::with(config().batch_size(1).claims_in_flight(2), false);
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.confirm_all(publish);
    let (first, second) = (world.take_claim(), world.take_claim());
    world.handle(Event::Claimed { nonce: first.nonce, result: Ok(Claimed::default()) });
    world.settle(Outcome::Applied);
    assert!(!world.claims(), "one is on its way");
    world.handle(Event::Claimed { nonce: second.nonce, result: Ok(Claimed::default()) });
    assert!(world.claims(), "it may have missed what lay behind the run");
    world.give_nothing();
    assert!(!world.claims());
}

#[test]
fn a_store_that_announces_work_and_hands_none_out_is_not_asked_in_a_hot_loop() {
    let mut world = World::new();
    let mut calls = 0;
    for _ in 0..1_000 {
        while world.claims() {
            calls += 1;
            let claim = world.take_claim();
            let claimed = Claimed { next_due: Some(Timestamp::EPOCH), ..Claimed::default() };
            world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
        }
        world.pass(Duration::from_millis(10));
    }
    assert!(calls < 200, "{calls} calls in ten seconds");
}

#[test]
fn full_answers_are_followed_at_once_until_enough_is_held() {
    let mut world = World::with(config().max_in_flight(20), false);
    let full = [("north", None); 10];
    world.give(&full);
    assert!(world.claims(), "more work is there");
    world.give(&full);
    assert!(!world.claims(), "twenty are held");
    let publish = world.take_publish();
    world.confirm_all(publish);
    assert!(!world.claims(), "an outcome that is not settled counts against what may be held");
    world.settle(Outcome::Applied);
    assert!(world.claims());
}

#[test]
fn leases_are_renewed_before_a_third_is_left_counted_from_before_the_claim() {
    let mut world = World::with(config().publish_timeout(20 * SECOND), false);
    let claim = world.take_claim();
    world.pass(5 * SECOND);
    let (claimed, token) = one_run(&claim, &[("north", None)], 0);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    world.pass(14 * SECOND);
    assert!(!world.has(|command| matches!(command, Command::Renew { .. })));
    world.pass(SECOND);
    let (ticket, tokens) = world.take_renewal();
    assert_eq!(tokens, [token]);
    world.pass(2 * SECOND);
    let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
    world.handle(Event::Renewed { ticket, tokens, result: Ok(vec![renewed]) });
    world.pass(17 * SECOND);
    assert!(!world.has(|command| matches!(command, Command::Renew { .. })));
    world.pass(SECOND);
    world.take_renewal();
}

#[test]
fn a_fenced_renewal_stops_new_sends_and_what_was_confirmed_is_still_settled() {
    let mut world = World::with(config().publish_timeout(20 * SECOND), false);
    world.give(&[("north.1", Some("k")), ("north.2", Some("k"))]);
    let publish = world.take_publish();
    world.pass(20 * SECOND);
    let (ticket, tokens) = world.take_renewal();
    let fenced = Renewed { outcome: Outcome::Fenced, at: Timestamp::EPOCH, lease_until: None };
    world.commands.clear();
    world.handle(Event::Renewed { ticket, tokens, result: Ok(vec![fenced]) });
    world.confirm_all(publish);
    assert!(!world.publishes());
    assert_eq!(world.settle(Outcome::Fenced), ["published, release"]);
    assert_eq!(world.heard("Fenced"), 1, "counted once");
}

#[test]
fn a_publish_is_cut_off_at_the_end_of_its_lease_and_keeps_what_was_confirmed() {
    let lease = RelayConfig::default().batch_size(10).lease(6 * SECOND).publish_timeout(4 * SECOND);
    let mut world = World::with(lease, false);
    let claim = world.take_claim();
    world.pass(4 * SECOND);
    let (claimed, _) = one_run(&claim, &[("north", None), ("north", None)], 0);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let publish = world.take_publish();
    world.take_renewal();
    world.pass(2 * SECOND);
    assert!(world.has(|command| matches!(command, Command::CutOff { ticket } if *ticket == publish.ticket)));
    world.answer(publish, [Some(Ok(())), None]);
    assert_eq!(
        world.settle(Outcome::Applied),
        ["published, release"],
        "the end of a lease is no failed send"
    );
}

#[test]
fn nothing_is_sent_that_its_lease_does_not_cover() {
    let mut world = World::new();
    let claim = world.take_claim();
    world.pass(30 * SECOND);
    let (claimed, _) = one_run(&claim, &[("north", None), ("north", Some("k"))], 0);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    assert!(!world.publishes());
    assert_eq!(world.settle(Outcome::Applied), ["hand back"]);
}

#[test]
fn a_publish_that_takes_too_long_is_cut_off() {
    let mut world = World::new();
    world.give(&[("north", None), ("north", None)]);
    let publish = world.take_publish();
    world.pass(5 * SECOND);
    assert!(world.has(|command| matches!(command, Command::CutOff { .. })));
    world.answer(publish, [Some(Ok(())), None]);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    assert_eq!(world.settle(Outcome::Applied), ["published, retry"], "the broker is there");
}

#[test]
fn a_settle_is_repeated_with_identical_verdicts_and_nothing_is_sent_again() {
    let mut world = World::new();
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.confirm_all(publish);
    let (mut ticket, mut settlements) = world.take_settle();
    let first = settlements.clone();
    for _ in 0..20 {
        world.commands.clear();
        world.handle(Event::Settled { ticket, settlements, result: Err(error(ErrorKind::Unavailable)) });
        world.pass(8 * SECOND);
        (ticket, settlements) = world.take_settle();
        assert_eq!(settlements, first);
        assert!(!world.publishes());
    }
    assert!(world.now > Moment::ORIGIN.after(60 * SECOND), "past the lease");
    let answer = Settled { outcome: Outcome::AlreadyApplied, at: Timestamp::EPOCH };
    world.handle(Event::Settled { ticket, settlements, result: Ok(vec![answer]) });
    assert_eq!(world.machine.held(), 0);
}

#[test]
fn a_settle_that_the_store_refuses_for_good_holds_nothing_else_up() {
    let mut world = World::new();
    let claim = world.take_claim();
    let (mut claimed, _) = one_run(&claim, &[("north", None), ("north", None)], 0);
    let first = claimed.runs[0];
    claimed.runs = vec![
        Run { len: 1, ..first },
        Run { start: 1, len: 1, token: Token { unit: 2, ..first.token }, ..first },
    ];
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let publish = world.take_publish();
    world.confirm_all(publish);
    let (ticket, settlements) = world.take_settle();
    assert_eq!(settlements.len(), 2);
    let refused = || Err(error(ErrorKind::Rejected));
    world.handle(Event::Settled { ticket, settlements, result: refused() });
    world.pass(SECOND);
    let (ticket, settlements) = world.take_settle();
    assert_eq!(settlements.len(), 1, "one by one");
    world.handle(Event::Settled { ticket, settlements, result: refused() });
    world.pass(2 * SECOND);
    assert_eq!(world.settle(Outcome::Applied), ["published"]);
    assert_eq!(world.machine.held(), 0, "the refused one is left to its lease");
}

#[test]
fn a_renewal_with_too_few_answers_is_sent_again() {
    let mut world = World::with(config().publish_timeout(20 * SECOND), false);
    world.give(&[("north", None)]);
    world.pass(20 * SECOND);
    let (ticket, tokens) = world.take_renewal();
    world.handle(Event::Renewed { ticket, tokens, result: Ok(Vec::new()) });
    world.pass(SECOND);
    world.take_renewal();
}

#[test]
fn a_suspect_is_taken_alone_and_renewed_before_it_is_sent() {
    let mut world = World::new();
    let claim = world.take_claim();
    let (mut claimed, _) = one_run(&claim, &[("north", None)], 0);
    claimed.suspects = 2;
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    world.pass(2 * SECOND);
    assert!(!world.claims(), "holds something");
    let publish = world.take_publish();
    world.confirm_all(publish);
    world.settle(Outcome::Applied);
    let solo = world.take_claim();
    assert!(solo.solo && solo.limit == 1);
    let (mut claimed, token) = one_run(&solo, &[("south", None)], 0);
    claimed.suspects = 1;
    world.handle(Event::Claimed { nonce: solo.nonce, result: Ok(claimed) });
    assert!(!world.publishes(), "not before its renewal");
    assert!(!world.claims(), "alone");
    let (ticket, tokens) = world.take_renewal();
    assert_eq!(tokens, [token]);
    let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
    world.handle(Event::Renewed { ticket, tokens, result: Ok(vec![renewed]) });
    let publish = world.take_publish();
    world.confirm_all(publish);
    world.settle(Outcome::Applied);
    assert!(!world.take_claim().solo, "ordinary claims have their turn");
}

#[test]
fn a_store_that_refuses_the_relay_stops_it_if_nothing_has_succeeded() {
    let mut world = World::new();
    let claim = world.take_claim();
    let refused = || Err(error(ErrorKind::Misconfigured));
    world.handle(Event::Claimed { nonce: claim.nonce, result: refused() });
    world.pass(60 * SECOND);
    assert!(world.machine.is_finished());
    assert!(world.machine.take_failure().is_some());

    let mut world = World::new();
    world.give_nothing();
    world.pass(SECOND);
    let claim = world.take_claim();
    world.handle(Event::Claimed { nonce: claim.nonce, result: refused() });
    world.pass(60 * SECOND);
    assert!(!world.machine.is_finished());
    assert!(world.claims(), "goes on trying");
}

#[test]
fn a_store_that_asks_for_an_endless_pause_is_asked_again_within_the_hour() {
    let mut world = World::new();
    let claim = world.take_claim();
    let endless = error(ErrorKind::Unavailable).retry_after(Duration::MAX);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Err(endless) });
    world.pass(3_600 * SECOND);
    assert!(world.claims());
}

#[test]
fn a_claim_that_certainly_took_nothing_is_not_repeated() {
    let mut world = World::new();
    let first = world.take_claim();
    let refused = error(ErrorKind::Unavailable).not_applied();
    world.handle(Event::Claimed { nonce: first.nonce, result: Err(refused) });
    assert!(!world.claims(), "not in a hot loop");
    let second = world.take_claim_in_time();
    assert_ne!(second.nonce, first.nonce);

    let lost = error(ErrorKind::Unavailable);
    world.handle(Event::Claimed { nonce: second.nonce, result: Err(lost) });
    assert_eq!(world.take_claim_in_time(), second);
    let refused = error(ErrorKind::Unavailable).not_applied();
    world.handle(Event::Claimed { nonce: second.nonce, result: Err(refused) });
    assert_eq!(world.take_claim_in_time(), second, "the first of them may have taken something");
}

#[test]
fn a_claim_whose_answer_was_lost_once_is_repeated_whatever_is_refused_later() {
    let mut world = World::new();
    let first = world.take_claim();
    world.handle(Event::Claimed { nonce: first.nonce, result: Err(error(ErrorKind::Unavailable)) });
    for _ in 0..3 {
        assert_eq!(
            world.take_claim_in_time().nonce,
            first.nonce,
            "it may have taken messages the first time"
        );
        let refused = error(ErrorKind::Unavailable).not_applied();
        world.handle(Event::Claimed { nonce: first.nonce, result: Err(refused) });
    }
    assert_eq!(world.take_claim_in_time().nonce, first.nonce);
}

impl World {
    fn take_claim_in_time(&mut self) -> Claim {
        self.pass(8 * SECOND);
        self.take_claim()
    }
}
