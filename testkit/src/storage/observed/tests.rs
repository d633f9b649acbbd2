//! Every rule, on the shortest history that breaks it.

use super::{Observed, Report};
use crate::storage::Violation;
use pillarbox_core::{
    Claim, Claimed, Content, Entry, HeadPolicy, Message, MessageId, Nonce, Outcome, Run, Settled, Text,
    Timestamp, Token, Verdict,
};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

fn message(number: u8) -> Message {
    let message = Message::given(MessageId::from_bytes([number; 16]), Timestamp::EPOCH, "topic");
    message.key("a").payload("").unwrap()
}

fn claim(observed: &mut Observed, fence: u64, messages: &[u8]) -> Token {
    let claim = Claim { limit: 10, lease: LEASE, nonce: Nonce::from_words(0, fence), solo: false };
    observed.claiming(&claim);
    let token = Token { unit: 0, fence, nonce: claim.nonce };
    let (claimed_at, len) =
        (Timestamp::EPOCH.after(Duration::from_millis(fence)), u32::try_from(messages.len()).unwrap());
    let run = Run { token, claimed_at, lease_until: claimed_at.after(LEASE), start: 0, len };
    let content = |number: &u8| Content::Message(message(*number));
    let entries = messages.iter().map(|number| Entry { content: content(number), attempts: 0, strikes: 0 });
    let claimed = Claimed { runs: vec![run], entries: entries.collect(), ..Claimed::default() };
    let ids = |_: &Run| messages.iter().map(|number| (message(*number).id(), 0)).collect();
    observed.claimed(&claim, &claimed, ids).unwrap();
    token
}

fn settle(observed: &mut Observed, token: Token, verdict: Verdict) {
    let (began, at) = (observed.begin(), Timestamp::EPOCH.after(Duration::from_millis(token.fence)));
    let answer = Settled { outcome: Outcome::Applied, at };
    observed.settled(began, token, Report::Verdicts(vec![verdict]), Some(answer));
}

fn two_commits(policy: HeadPolicy) -> Observed {
    let mut observed = Observed::new(policy);
    for number in [1, 2] {
        commit(&mut observed, number);
    }
    observed
}

fn commit(observed: &mut Observed, number: u8) {
    let mut enqueued = observed.enqueueing(vec![message(number)]);
    observed.committing(&mut enqueued);
    observed.committed(enqueued, true);
}

fn broken_rule(observed: &Observed) -> Option<u8> {
    number(observed.judge().map(drop))
}

fn broken_order(observed: &Observed) -> Option<u8> {
    number(observed.keys_are_in_order())
}

fn number(result: Result<(), Violation>) -> Option<u8> {
    match result {
        Ok(()) => None,
        Err(Violation::Broken { rule, .. }) => Some(rule.number),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_message_waits_for_the_one_before_it() {
    let mut observed = two_commits(HeadPolicy::Continue);
    claim(&mut observed, 1, &[2]);
    assert_eq!(broken_order(&observed), Some(5));
    let mut observed = two_commits(HeadPolicy::Continue);
    claim(&mut observed, 1, &[2, 1]);
    assert_eq!(broken_order(&observed), Some(5));
    let mut observed = two_commits(HeadPolicy::Continue);
    claim(&mut observed, 1, &[1, 2]);
    assert_eq!(broken_order(&observed), None);
}

#[test]
fn a_message_follows_one_that_is_over() {
    let reason = || Text::from("no");
    let bury = || Verdict::Bury { reason: reason() };
    let retry = Verdict::Retry { after: Duration::ZERO, error: reason() };
    for (policy, verdict, rule) in [
        (HeadPolicy::Continue, Verdict::Published, None),
        (HeadPolicy::Continue, bury(), None),
        (HeadPolicy::Continue, retry, Some(5)),
        (HeadPolicy::Block, Verdict::Published, None),
        (HeadPolicy::Block, bury(), Some(6)),
    ] {
        let mut observed = two_commits(policy);
        let token = claim(&mut observed, 1, &[1]);
        settle(&mut observed, token, verdict.clone());
        claim(&mut observed, 2, &[2]);
        assert_eq!(broken_order(&observed), rule, "{policy:?} {verdict:?}");
    }
}

#[test]
fn commits_that_overlap_have_no_order() {
    let mut observed = Observed::new(HeadPolicy::Continue);
    let enqueued = [1, 2].map(|number| observed.enqueueing(vec![message(number)]));
    for mut enqueued in enqueued {
        observed.committing(&mut enqueued);
        observed.committed(enqueued, true);
    }
    claim(&mut observed, 1, &[2]);
    assert_eq!(broken_order(&observed), None);
}

#[test]
fn what_is_over_is_not_handed_out_again() {
    let mut observed = two_commits(HeadPolicy::Continue);
    let token = claim(&mut observed, 1, &[1]);
    settle(&mut observed, token, Verdict::Published);
    claim(&mut observed, 2, &[1]);
    assert_eq!(broken_rule(&observed), Some(7));
}

#[test]
fn what_was_acknowledged_arrives() {
    let mut observed = two_commits(HeadPolicy::Continue);
    let id = |number| message(number).id();
    observed.delivered(id(1));
    assert_eq!(broken_rule(&observed), Some(8));
    observed.delivered(id(2));
    assert_eq!(broken_rule(&observed), None);
    observed.delivered(id(3));
    assert_eq!(broken_rule(&observed), Some(0));
}

#[test]
fn only_what_was_committed_is_handed_out() {
    let mut observed = Observed::new(HeadPolicy::Continue);
    let rolled_back = observed.enqueueing(vec![message(1)]);
    assert_eq!(rolled_back.messages().len(), 1);
    claim(&mut observed, 1, &[1]);
    assert_eq!(broken_rule(&observed), Some(0));
    let mut observed = Observed::new(HeadPolicy::Continue);
    let mut early = observed.enqueueing(vec![message(1)]);
    claim(&mut observed, 1, &[1]);
    observed.committing(&mut early);
    observed.committed(early, true);
    observed.delivered(message(1).id());
    assert_eq!(broken_rule(&observed), Some(0));
}
