//! What is sent when, and what each outcome means for its message, its key and its destination.

use super::*;

#[test]
fn a_message_is_claimed_published_and_settled() {
    let mut world = World::new();
    world.give(&[("north", None), ("north", None)]);
    let publish = world.take_publish();
    assert_eq!(publish.topics(), ["north", "north"]);
    world.confirm_all(publish);
    assert_eq!(world.settle(Outcome::Applied), ["published, published"]);
    assert_eq!(world.machine.held(), 0);
    assert!(world.claims(), "claims again once what it held is settled");
}

#[test]
fn one_key_goes_one_message_at_a_time_without_a_prefix_guarantee() {
    let mut world = World::new();
    world.give(&[
        ("north.1", Some("k")),
        ("north.2", Some("k")),
        ("north.3", Some("other")),
        ("north.4", None),
    ]);
    let publish = world.take_publish();
    assert_eq!(publish.topics(), ["north.1", "north.3", "north.4"]);
    assert!(!world.publishes());
    world.confirm_all(publish);
    let publish = world.take_publish();
    assert_eq!(publish.topics(), ["north.2"]);
    world.confirm_all(publish);
    assert_eq!(world.settle(Outcome::Applied), ["published, published, published, published"]);
}

#[test]
fn one_key_goes_together_with_a_prefix_guarantee() {
    let mut world = World::with(config(), true);
    world.give(&[
        ("north.1", Some("k")),
        ("north.2", Some("k")),
        ("south.3", Some("k")),
        ("north.4", Some("k")),
    ]);
    let publish = world.take_publish();
    assert_eq!(publish.topics(), ["north.1", "north.2"], "the key goes on elsewhere, in order");
    assert!(!world.publishes());
    world.confirm_all(publish);
    let publish = world.take_publish();
    assert_eq!((publish.destination, publish.topics()), (SOUTH, vec!["south.3"]));
    world.confirm_all(publish);
    assert_eq!(world.take_publish().topics(), ["north.4"]);
}

#[test]
fn the_first_failure_of_a_key_settles_its_prefix_and_releases_its_rest() {
    for prefix_per_key in [false, true] {
        let mut world = World::with(config(), prefix_per_key);
        let keyed = |n: u32| if n == 2 { None } else { Some("k") };
        let topics = ["north.0", "north.1", "north.2", "north.3"];
        let messages: Vec<_> = topics.iter().zip(0..).map(|(topic, n)| (*topic, keyed(n))).collect();
        world.give(&messages);
        let mut publish = world.take_publish();
        if !prefix_per_key {
            world.confirm_all(publish);
            publish = world.take_publish();
            assert_eq!(publish.topics(), ["north.1"]);
            world.answer(publish, [failed(ErrorKind::Unroutable)]);
        } else {
            assert_eq!(publish.topics(), ["north.0", "north.1", "north.3", "north.2"]);
            let unroutable = || failed(ErrorKind::Unroutable);
            world.answer(publish, [Some(Ok(())), unroutable(), unroutable(), Some(Ok(()))]);
        }
        assert_eq!(world.settle(Outcome::Applied), ["published, retry, published, release"]);
        assert_eq!(world.heard("Retried"), 1, "one attempt is charged, not two");
    }
}

#[test]
fn what_an_error_means_for_a_message() {
    for (kind, attempts, expected) in [
        (ErrorKind::Unroutable, 0, "retry"),
        (ErrorKind::Unroutable, 1, "retry"),
        (ErrorKind::Unroutable, 2, "bury"),
        (ErrorKind::Rejected, 0, "bury"),
    ] {
        let mut world = World::new();
        world.give_attempted(&[("north", None)], attempts);
        let publish = world.take_publish();
        world.answer(publish, [failed(kind)]);
        assert_eq!(world.settle(Outcome::Applied), [expected], "{kind:?} after {attempts} attempts");
    }
}

#[test]
fn an_outage_charges_nothing_and_pauses_its_destination_only() {
    let mut world = World::new();
    world.give(&[("north", None), ("south", None), ("north", Some("k")), ("south", Some("k"))]);
    let north = world.take_publish();
    assert_eq!(north.destination, NORTH);
    let south = world.take_publish();
    world.answer(north, [failed(ErrorKind::Unavailable), failed(ErrorKind::Unavailable)]);
    world.confirm_all(south);
    assert_eq!(world.settle(Outcome::Applied), ["release later, published, release later, release"]);
    world.give(&[("south", None), ("north", None)]);
    let south = world.take_publish();
    assert_eq!(south.destination, SOUTH, "the other destination keeps flowing");
    world.confirm_all(south);
    assert_eq!(world.settle(Outcome::Applied), ["published, release later"]);
    assert_eq!(world.heard("Retried") + world.heard("Buried"), 0);
}

#[test]
fn while_every_destination_is_away_nothing_is_claimed_and_runs_go_back_whole() {
    let mut world = World::new();
    world.give(&[("north", None), ("south", None)]);
    let (north, south) = (world.take_publish(), world.take_publish());
    let refused = || Some(Err(error(ErrorKind::Unavailable).not_applied()));
    world.answer(north, [refused()]);
    world.answer(south, [refused()]);
    assert_eq!(world.settle(Outcome::Applied), ["hand back later"]);
    let mut probes = 0;
    for _ in 0..3_600 {
        world.pass(SECOND);
        while world.has(|command| matches!(command, Command::Probe { .. })) {
            probes += 1;
            let destination = world.take_probe();
            let result = Err(error(ErrorKind::Unavailable).not_applied());
            world.handle(Event::Probed { destination, result });
        }
        assert!(!world.claims());
    }
    assert!((600..4_000).contains(&probes), "an hour of two destinations probed every 0.5 to 8 s: {probes}");
    world.pass(8 * SECOND);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    assert!(world.claims(), "claims at once when one is back");
}

#[test]
fn an_unclear_failure_is_charged_only_if_the_destination_answers_a_probe() {
    for (alive, expected) in [(true, "retry"), (false, "release later")] {
        let mut world = World::new();
        world.give(&[("north", None)]);
        let publish = world.take_publish();
        world.answer(publish, [failed(ErrorKind::Indeterminate)]);
        let destination = world.take_probe();
        let result = if alive { Ok(()) } else { Err(error(ErrorKind::Unavailable)) };
        world.handle(Event::Probed { destination, result });
        assert_eq!(world.settle(Outcome::Applied), [expected], "alive: {alive}");
    }
}

/// A broker that hangs from the middle of a batch on has confirmed a part of it.
#[test]
fn an_unclear_failure_beside_a_confirmed_message_is_charged_by_the_probe_alone() {
    for (alive, expected) in [(true, "retry, published"), (false, "release later, published")] {
        let mut world = World::new();
        world.give(&[("north", None), ("north", None)]);
        let publish = world.take_publish();
        world.pass(SECOND);
        world.answer(publish, [failed(ErrorKind::Indeterminate), Some(Ok(()))]);
        let destination = world.take_probe();
        let result = if alive { Ok(()) } else { Err(error(ErrorKind::Unavailable)) };
        world.handle(Event::Probed { destination, result });
        assert_eq!(world.settle(Outcome::Applied), [expected], "alive: {alive}");
    }
}

#[test]
fn after_a_lost_connection_messages_are_sent_one_at_a_time_and_the_one_that_kills_it_is_charged() {
    let mut world = World::new();
    let three = [("north.1", None), ("north.2", None), ("north.3", None)];
    world.give(&three);
    let publish = world.take_publish();
    world.answer(publish, [(); 3].map(|()| failed(ErrorKind::Unavailable)));
    assert_eq!(world.settle(Outcome::Applied), ["release later, release later, release later"]);
    world.pass(SECOND);
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    world.give(&three);
    let first = world.take_publish();
    assert_eq!(first.topics(), ["north.1"]);
    assert!(!world.publishes(), "one at a time");
    world.confirm_all(first);
    let second = world.take_publish();
    assert_eq!(second.topics(), ["north.2"]);
    world.answer(second, [failed(ErrorKind::Unavailable)]);
    assert!(!world.publishes(), "nothing is sent before it is known who was at fault");
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    world.confirm_all_in_turn();
    assert_eq!(world.settle(Outcome::Applied), ["published, retry, published"]);
}

#[test]
fn a_payload_that_the_destination_does_not_take_is_buried_without_being_sent() {
    let mut world = World::new();
    let claim = world.take_claim();
    let (mut claimed, _) = one_run(&claim, &[("north", None), ("north", None)], 0);
    let id = MessageId::from_bytes([2; 16]);
    let large = Message::given(id, Timestamp::EPOCH, "north").payload(vec![0; 101]).unwrap();
    claimed.entries[0].content = Content::Message(large);
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let publish = world.take_publish();
    assert_eq!(publish.batch.len(), 1);
    world.confirm_all(publish);
    assert_eq!(world.settle(Outcome::Applied), ["bury, published"]);
    assert_eq!(world.heard("101 bytes"), 1);
}

#[test]
fn an_undecodable_record_is_buried_and_the_others_flow() {
    let mut world = World::new();
    let claim = world.take_claim();
    let (mut claimed, _) = one_run(&claim, &[("north", None), ("north", None)], 0);
    let reason = "version 9 is unknown".into();
    claimed.entries[0].content =
        Content::Undecodable(crate::Undecodable { id: None, bytes: "x".into(), reason });
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let publish = world.take_publish();
    world.confirm_all(publish);
    assert_eq!(world.settle(Outcome::Applied), ["bury, published"]);
}

#[test]
fn an_undecodable_record_behind_a_message_that_stays_is_not_buried_yet() {
    for (kind, expected) in [
        (ErrorKind::Unroutable, "retry, release, published"),
        (ErrorKind::Unavailable, "release later, release, published"),
        (ErrorKind::Rejected, "bury, bury, published"),
    ] {
        let mut world = World::new();
        let claim = world.take_claim();
        let messages = [("north", Some("k")), ("north", Some("k")), ("south", None)];
        let (mut claimed, _) = one_run(&claim, &messages, 0);
        let reason = "a header is no text".into();
        claimed.entries[1].content =
            Content::Undecodable(crate::Undecodable { id: None, bytes: "x".into(), reason });
        world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
        let north = world.take_publish();
        let south = world.take_publish();
        world.answer(north, [Some(Err(error(kind).not_applied()))]);
        world.confirm_all(south);
        assert_eq!(world.settle(Outcome::Applied), [expected], "its key may be the same: {kind:?}");
    }
}

#[test]
fn bad_credentials_stop_a_relay_that_never_succeeded_and_pause_one_that_did() {
    let mut world = World::new();
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.answer(publish, [failed(ErrorKind::Misconfigured)]);
    assert_eq!(world.settle(Outcome::Applied), ["release later"], "uncharged");
    assert!(world.machine.is_finished());
    assert_eq!(world.machine.take_failure().unwrap().kind(), ErrorKind::Misconfigured);

    let mut world = World::new();
    world.give(&[("north", None), ("north", Some("k")), ("north", Some("k"))]);
    let publish = world.take_publish();
    world.confirm_all(publish);
    let publish = world.take_publish();
    world.answer(publish, [failed(ErrorKind::Misconfigured)]);
    assert_eq!(world.settle(Outcome::Applied), ["published, published, release later"]);
    assert!(!world.machine.is_finished());
    assert_eq!(world.heard("Paused"), 1);
}

#[test]
fn destinations_take_turns_and_each_has_its_own_limit() {
    let mut world = World::with(config().publishes_in_flight(1), false);
    world.give(&[("north", None), ("south", None)]);
    assert_eq!(world.take_publish().destination, NORTH);
    assert_eq!(world.take_publish().destination, SOUTH);
}

impl World {
    fn confirm_all_in_turn(&mut self) {
        while self.publishes() {
            let publish = self.take_publish();
            self.confirm_all(publish);
        }
    }
}

#[test]
fn a_message_that_is_too_large_waits_for_the_earlier_ones_of_its_key() {
    let messages = [("north.1", Some("k")), ("north.large", Some("k")), ("north.3", Some("k"))];
    let mut world = World::with(config(), true);
    world.give(&messages);
    let publish = world.take_publish();
    assert_eq!(publish.topics(), ["north.1"]);
    world.answer(publish, [failed(ErrorKind::Unroutable)]);
    assert_eq!(
        world.settle(Outcome::Applied),
        ["retry, release, release"],
        "a store takes no burial behind a retry of the same key"
    );

    let mut world = World::with(config(), true);
    world.give(&messages);
    let publish = world.take_publish();
    world.confirm_all(publish);
    assert_eq!(world.settle(Outcome::Applied), ["published, bury, release"]);
}

#[test]
fn a_broker_that_asks_for_an_endless_pause_is_probed_within_the_hour() {
    let mut world = World::new();
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    let endless = |kind| error(kind).retry_after(Duration::MAX);
    world.answer(publish, [Some(Err(endless(ErrorKind::Unavailable).not_applied()))]);
    world.commands.clear();
    world.pass(3_600 * SECOND);
    assert_eq!(world.take_probe(), NORTH);

    let mut world = World::new();
    world.give(&[("north", None)]);
    let publish = world.take_publish();
    world.answer(publish, [Some(Err(endless(ErrorKind::Unroutable)))]);
    let (_, settlements) = world.take_settle();
    let (_, settlement) = settlements.iter().next().unwrap();
    let Settlement::Verdicts([Verdict::Retry { after, .. }]) = settlement else { panic!("{settlement:?}") };
    assert!(*after <= 3_600 * SECOND, "the message is not lost to the next ice age: {after:?}");
}

#[test]
fn a_key_that_spans_two_runs_is_released_once() {
    let mut world = World::new();
    let claim = world.take_claim();
    let (mut claimed, token) = one_run(&claim, &[("north", Some("k")), ("north", Some("k"))], 0);
    claimed.runs[0].len = 1;
    claimed.runs.push(Run { token: Token { unit: 2, ..token }, start: 1, ..claimed.runs[0] });
    world.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
    let publish = world.take_publish();
    // The head is doubted, and what is behind it is given back meanwhile.
    world.answer(publish, [failed(ErrorKind::Unavailable)]);
    assert_eq!(world.settle(Outcome::Applied), ["hand back"]);
    // The probe finds the head at fault, and the rest of its key is settled already.
    let destination = world.take_probe();
    world.handle(Event::Probed { destination, result: Ok(()) });
    assert_eq!(world.settle(Outcome::Applied), ["retry"]);
    assert_eq!(world.machine.held(), 0);
}
