//! What is reported when, and in how many calls.

use super::*;

impl World {
    /// Lets every run that is given be claimed, whatever is held.
    fn with_room() -> Self {
        Self::with(config().max_in_flight(10_000).claims_in_flight(4), false)
    }

    /// Answers the open claim with one run of so many messages, and confirms them.
    fn confirm_run_of(&mut self, messages: usize) {
        self.give(&vec![("north", None); messages]);
        while self.publishes() {
            let publish = self.take_publish();
            self.confirm_all(publish);
        }
    }

    fn settles(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, Command::Settle { .. })).count()
    }

    /// How many messages each run of the open settle reports. Answers the settle.
    fn settled_runs(&mut self) -> Vec<usize> {
        self.settle(Outcome::Applied).iter().map(|verdicts| verdicts.split(", ").count()).collect()
    }
}

#[test]
fn three_settles_are_on_their_way_at_once_and_no_more() {
    let mut world = World::with_room();
    for _ in 0..5 {
        world.confirm_run_of(10);
    }
    assert_eq!(world.settles(), 3);
}

#[test]
fn a_settle_reports_a_thousand_messages_and_more_only_if_one_run_has_them() {
    for (runs, together) in
        [([600, 400, 1], vec![600, 400]), ([600, 401, 1], vec![600]), ([1_001, 1, 1], vec![1_001])]
    {
        let mut world = World::with_room();
        for _ in 0..3 {
            world.confirm_run_of(10);
        }
        for messages in runs {
            world.confirm_run_of(messages);
        }
        for _ in 0..3 {
            assert_eq!(world.settled_runs(), [10]);
        }
        assert_eq!(world.settled_runs(), together);
    }
}

#[test]
fn what_the_store_took_is_counted_over_all_runs() {
    let mut world = World::with_room();
    for _ in 0..3 {
        world.confirm_run_of(10);
    }
    world.give(&[("north", None), ("north.1", Some("k")), ("north.2", Some("k"))]);
    let publish = world.take_publish();
    world.answer(publish, [Some(Ok(())), failed(ErrorKind::Unroutable)]);
    world.give(&[("north", None), ("north.1", Some("k")), ("north.2", Some("k"))]);
    let publish = world.take_publish();
    assert_eq!(world.heard("confirmed: 1, failed: 1"), 1);
    world.answer(publish, [Some(Ok(())), failed(ErrorKind::Unroutable)]);
    for _ in 0..3 {
        world.settle(Outcome::Applied);
    }
    assert_eq!(world.heard("Released"), 0, "nothing was released yet");
    assert_eq!(world.settle(Outcome::Applied), ["published, retry, release"; 2]);
    assert_eq!(world.heard("Settled { published: 10"), 3);
    assert_eq!(world.heard("Settled { published: 2"), 1);
    assert_eq!(world.heard("Released { messages: 2 }"), 1);
}

#[test]
fn a_fenced_settle_tells_how_many_of_its_messages_were_sent() {
    let mut world = World::new();
    world.give(&[("north", None), ("north", None), ("north", None)]);
    let publish = world.take_publish();
    world.answer(publish, [Some(Ok(())), Some(Ok(())), failed(ErrorKind::Unroutable)]);
    world.settle(Outcome::Fenced);
    assert_eq!(world.heard("Fenced { sent: 2 }"), 1);
    assert_eq!(world.heard("Settled { published: 0"), 1);
}

#[test]
fn what_is_being_settled_or_renewed_is_not_renewed_again() {
    let renews = |world: &World| world.has(|command| matches!(command, Command::Renew { .. }));
    let mut world = World::new();
    world.confirm_run_of(3);
    world.pass(25 * SECOND);
    assert!(!renews(&world), "it is being settled");

    let mut world = World::with(config().publish_timeout(20 * SECOND), false);
    let first = world.give(&[("north", None)]);
    world.pass(10 * SECOND);
    world.give_nothing();
    world.pass(2 * SECOND);
    let second = world.give(&[("south", None)]);
    world.pass(8 * SECOND);
    assert_eq!(world.take_renewal().1, [first]);
    world.pass(13 * SECOND);
    assert_eq!(world.take_renewal().1, [second], "the other one's renewal is on its way");
}
