//! How long, how many and how often: the figures that a wrong sign or a wrong comparison would change unseen.

use super::*;

impl World {
    fn claim_deadline(&self) -> Moment {
        let mut deadlines = self.commands.iter().filter_map(|command| match command {
            Command::Claim { deadline, .. } => Some(*deadline),
            _ => None,
        });
        deadlines.next_back().unwrap()
    }

    /// Fails the open claim.
    fn fail_claim(&mut self, error: Error) {
        let claim = self.take_claim();
        self.handle(Event::Claimed { nonce: claim.nonce, result: Err(error) });
    }

    /// Answers the open claim with a batch that is full, and reports it as settled.
    fn give_full_batch_of(&mut self, topic: &str) {
        self.give(&[(topic, None); 10]);
        self.settle(Outcome::Applied);
    }

    fn pause_north(&mut self) {
        self.give(&[("north", None)]);
        let publish = self.take_publish();
        self.answer(publish, [Some(Err(error(ErrorKind::Unavailable).not_applied()))]);
        self.settle(Outcome::Applied);
    }
}

#[test]
fn a_call_of_the_store_has_a_third_of_the_lease_and_ten_seconds_at_most() {
    for (lease, patience) in [(15, 5), (30, 10), (600, 10)] {
        let world = World::with(config().lease(lease * SECOND), false);
        assert_eq!(world.claim_deadline(), Moment::ORIGIN.after(patience * SECOND), "a lease of {lease} s");
    }
}

#[test]
fn what_is_held_is_counted_and_every_call_has_a_ticket_of_its_own() {
    let mut world = World::new();
    world.give(&[("north", None), ("south", None), ("south", None)]);
    assert_eq!(world.machine.held(), 3);
    let (north, south) = (world.take_publish(), world.take_publish());
    assert_ne!(north.ticket, south.ticket);
    world.confirm_all(south);
    world.confirm_all(north);
    world.settle(Outcome::Applied);
    assert_eq!(world.machine.held(), 0);
    assert_eq!(world.heard("StoreRecovered"), 0, "it never failed");
    assert!(format!("{:?}", world.machine).contains("held: 0"));
}

#[test]
fn a_requested_pause_is_kept_up_to_an_hour() {
    let away = || error(ErrorKind::Unavailable).not_applied();
    for (asked, kept) in [(600 * SECOND, 600 * SECOND), (Duration::MAX, 3_600 * SECOND)] {
        let mut world = World::new();
        world.fail_claim(away().retry_after(asked));
        world.pass(kept - SECOND);
        assert!(!world.claims(), "asked not to for {asked:?}");
        world.pass(SECOND);
        assert!(world.claims());
    }
}

#[test]
fn a_solo_claim_that_finds_nothing_or_fails_gives_ordinary_ones_their_turn() {
    let wanted = || {
        let mut world = World::new();
        let claim = world.take_claim();
        let claimed = Claimed { suspects: 1, ..Claimed::default() };
        world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
        world
    };
    let mut world = wanted();
    let solo = world.take_claim();
    assert!(solo.solo);
    world.handle(Event::Claimed { nonce: solo.nonce, result: Ok(Claimed::default()) });
    world.pass(SECOND);
    assert!(!world.take_claim().solo);

    let mut world = wanted();
    world.fail_claim(error(ErrorKind::Unavailable).not_applied());
    world.pass(2 * SECOND);
    assert!(!world.take_claim().solo);

    let mut world = wanted();
    world.give(&[("north", None)]);
    world.pass(2 * SECOND);
    assert!(!world.claims(), "nothing is claimed beside a suspect that is held");
}

#[test]
fn a_destination_that_nobody_announced_is_sent_to() {
    let mut world = World::new();
    let heard: Arc<Heard> = Arc::default();
    world.machine = Machine::new(config(), &[], Box::new(|| 7), heard).unwrap();
    world.commands.clear();
    world.settle_down();
    world.give(&[("south", None), ("north", None)]);
    assert_eq!(world.take_publish().destination, NORTH);
    assert_eq!(world.take_publish().destination, SOUTH);
}

#[test]
fn messages_of_paused_destinations_are_passed_ten_times_at_once_and_then_slowly() {
    let mut world = World::new();
    world.pause_north();
    world.commands.retain(|command| matches!(command, Command::Claim { .. }));
    let at = world.now;
    for _ in 0..11 {
        assert_eq!(world.now, at);
        world.give_full_batch_of("north");
    }
    for _ in 0..3 {
        assert!(!world.claims(), "a backlog of messages for a paused destination keeps the store busy");
        world.pass(Duration::from_millis(50));
        world.give_full_batch_of("north");
    }
    world.pass(Duration::from_millis(50));
    world.give(&[("south", None); 10]);
    assert!(world.claims(), "what can be sent is followed at once again");
}

#[test]
fn a_destination_takes_as_many_publishes_as_the_setting_says() {
    let mut world = World::with(config().batch_size(1).claims_in_flight(4).publishes_in_flight(3), false);
    for _ in 0..4 {
        world.give(&[("north", None)]);
    }
    let open: Vec<_> = (0..3).map(|_| world.take_publish()).collect();
    assert!(!world.publishes());
    open.into_iter().for_each(|publish| world.confirm_all(publish));
    assert!(world.publishes());
}

#[test]
fn what_waits_for_a_destination_goes_back_until_after_its_probe() {
    let mut world = World::with(config().batch_size(1).claims_in_flight(4).publishes_in_flight(1), false);
    world.give(&[("north", None)]);
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    let away = error(ErrorKind::Unavailable).retry_after(20 * SECOND).not_applied();
    world.answer(publish, [Some(Err(away))]);
    let (_, settlements) = world.take_settle();
    assert_eq!(settlements.len(), 2, "the one that waited, too");
    for (_, settlement) in settlements.iter() {
        let Settlement::Verdicts([Verdict::Release { after }]) = settlement else { panic!("{settlement:?}") };
        assert!(
            (20 * SECOND..=40 * SECOND).contains(after),
            "at the probe or within as long again: {after:?}"
        );
    }
}

#[test]
fn a_probe_that_is_answered_with_a_refusal_is_a_sign_of_life() {
    let mut world = World::new();
    world.pause_north();
    world.pass(SECOND);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Err(error(ErrorKind::Unroutable)) });
    assert_eq!(world.heard("Resumed"), 1);
    assert!(world.claims());
}

#[test]
fn a_probe_that_is_refused_stops_a_relay_that_never_succeeded_and_pauses_one_that_did() {
    for succeeded in [false, true] {
        let mut world = World::new();
        if succeeded {
            world.give(&[("south", None)]);
            let publish = world.take_publish();
            world.confirm_all(publish);
            world.settle(Outcome::Applied);
        }
        world.pause_north();
        world.pass(SECOND);
        let destination = world.take_probe();
        world.handle(Event::Probed { destination, result: Err(error(ErrorKind::Misconfigured)) });
        assert_eq!(world.machine.take_failure().is_some(), !succeeded);
    }
}

#[test]
fn every_message_of_a_run_that_is_handed_back_is_counted() {
    let mut world = World::new();
    world.handle(Event::Shutdown);
    world.give(&[("north", None), ("north", None), ("south", None)]);
    assert_eq!(world.settle(Outcome::Applied), ["hand back"]);
    assert_eq!(world.heard("Released { messages: 3 }"), 1);
}

#[test]
fn destinations_take_turns_batch_by_batch() {
    let one_at_a_time = config().batch_size(1).max_in_flight(100).publishes_in_flight(2);
    let mut world = World::with(one_at_a_time, false);
    world.give(&[("north", None), ("north", None), ("south", None)]);
    let order: Vec<_> = (0..3).map(|_| world.take_publish().destination).collect();
    assert_eq!(order, [NORTH, SOUTH, NORTH]);
}

#[test]
fn a_payload_as_large_as_the_destination_takes_is_sent() {
    for prefix_per_key in [false, true] {
        let mut world = World::with(config(), prefix_per_key);
        world.give(&[("north.1", Some("k")), ("north.full", Some("k"))]);
        let mut sent = 0;
        while world.publishes() {
            let publish = world.take_publish();
            sent += publish.batch.len();
            world.confirm_all(publish);
        }
        assert_eq!(sent, 2);
        assert_eq!(world.settle(Outcome::Applied), ["published, published"]);
    }
}

#[test]
fn after_a_lost_connection_a_key_with_a_prefix_goes_one_at_a_time_as_well() {
    let mut world = World::with(config(), true);
    let keyed = [("north.1", Some("k")), ("north.2", Some("k"))];
    world.give(&keyed);
    let publish = world.take_publish();
    world.answer(publish, [(); 2].map(|()| failed(ErrorKind::Unavailable)));
    world.settle(Outcome::Applied);
    world.pass(SECOND);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    world.give(&keyed);
    assert_eq!(world.take_publish().topics(), ["north.1"]);
    assert!(!world.publishes());
}

#[test]
fn every_lost_connection_costs_one_more_send_alone() {
    let mut world = World::new();
    world.give(&[("north", None); 3]);
    let publish = world.take_publish();
    world.answer(publish, [(); 3].map(|()| failed(ErrorKind::Unavailable)));
    world.settle(Outcome::Applied);
    world.pass(SECOND);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    world.give(&[("north", None); 9]);
    let publish = world.take_publish();
    world.answer(publish, [failed(ErrorKind::Unavailable)]);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    for _ in 0..4 {
        let publish = world.take_publish();
        assert_eq!(publish.batch.len(), 1);
        world.confirm_all(publish);
    }
    assert_eq!(world.take_publish().batch.len(), 4, "three were owed, and one more");
}

#[test]
fn a_renewed_lease_covers_the_publish_that_was_on_its_way() {
    let lease = RelayConfig::default().batch_size(10).lease(6 * SECOND).publish_timeout(4 * SECOND);
    let mut world = World::with(lease, false);
    let claim = world.take_claim();
    world.pass(4 * SECOND);
    let (claimed, _) = one_run(&claim, &[("north", None)], 0);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    world.take_publish();
    let (ticket, tokens) = world.take_renewal();
    let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
    world.handle(Event::Renewed { ticket, tokens, result: Ok(vec![renewed]) });
    let cut_off = |world: &World| world.has(|command| matches!(command, Command::CutOff { .. }));
    world.pass(3 * SECOND);
    assert!(!cut_off(&world), "the first lease would have ended a second ago");
    world.pass(SECOND);
    assert!(cut_off(&world), "a publish has four seconds");
}

#[test]
fn a_stop_cuts_nothing_off_before_the_grace_period_ends() {
    let mut world = World::with(config().shutdown_grace(2 * SECOND), false);
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    let cut_off = |world: &World| world.has(|command| matches!(command, Command::CutOff { .. }));
    world.handle(Event::Shutdown);
    world.pass(2 * SECOND - Duration::from_millis(1));
    assert!(!cut_off(&world));
    world.pass(Duration::from_millis(1));
    assert!(cut_off(&world));
    world.answer(publish, [None]);
}
