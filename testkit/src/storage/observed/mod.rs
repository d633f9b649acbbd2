//! What several relays and producers saw while they worked at the same time. A call has a beginning and an end; where between
//! them the store acted, nobody knows, so that only what no order of the effects explains counts as a violation.

mod judge;
mod keys;
mod story;
#[cfg(test)]
mod tests;

use crate::check::Totals;
use crate::storage::Violation;
use crate::storage::rule::{ANSWERS, ensure};
use pillarbox_core::{
    Claim, Claimed, HeadPolicy, Message, MessageId, Nonce, Outcome, Renewed, Run, Settled, Text, Timestamp,
    Token, Verdict,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Everything that was seen of one outbox.
#[derive(Debug)]
pub(super) struct Observed {
    policy: HeadPolicy,
    ticks: u64,
    commits: Vec<Commit>,
    /// The claims by their nonces: a repetition answers what the first try took.
    asked: HashMap<Nonce, Asked>,
    holds: Vec<Hold>,
    by_token: HashMap<Token, usize>,
    renewals: Vec<Renewal>,
    settlings: Vec<Settling>,
    deliveries: Vec<MessageId>,
    pub(super) counts: Counts,
}

/// What a run of this kind has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) claims: u64,
    pub(super) dropped: u64,
    pub(super) transient: u64,
    pub(super) fenced: u64,
    pub(super) repeated: u64,
    pub(super) taken_over: u64,
}

/// From before a call to after its answer, in ticks of this process.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: u64,
    ended: u64,
}

impl Span {
    /// Whether whatever this call did, it did before that one began.
    const fn precedes(self, other: Self) -> bool {
        self.ended < other.began
    }
}

/// A transaction whose commit was asked for.
#[derive(Debug)]
struct Commit {
    /// From before its enqueue, which may already decide its place. The end is that of time if nobody learned of it.
    span: Span,
    /// Before this nothing of it may be seen.
    asked: u64,
    messages: Vec<Message>,
    acknowledged: bool,
}

/// A transaction on its way.
#[derive(Debug)]
pub(super) struct Enqueued {
    began: u64,
    asked: u64,
    messages: Vec<Message>,
}

impl Enqueued {
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }
}

/// A run, as a claim handed it out.
#[derive(Debug)]
struct Hold {
    token: Token,
    span: Span,
    /// The latest time at which it can have been claimed.
    claimed_at: Timestamp,
    until: Timestamp,
    /// The messages with the failed sends that were charged so far.
    entries: Vec<(MessageId, u32)>,
}

/// A claim that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: u64,
    /// An answer was lost, and may have come at any time since.
    lost: bool,
}

#[derive(Debug)]
struct Renewal {
    token: Token,
    span: Span,
    answer: Renewed,
}

#[derive(Debug)]
struct Settling {
    token: Token,
    span: Span,
    report: Report,
    /// None if the call was dropped, or its answer lost.
    answer: Option<Settled>,
}

/// What a relay reports of a run.
#[derive(Clone, Debug)]
pub(super) enum Report {
    Verdicts(Vec<Verdict>),
    HandBack(Duration),
}

impl Settling {
    /// Whether it may have changed anything: it was applied, or nobody knows.
    fn may_have_applied(&self) -> bool {
        self.answer.is_none_or(|answer| answer.outcome == Outcome::Applied)
    }

    fn was_applied(&self) -> Option<Settled> {
        self.answer.filter(|answer| answer.outcome == Outcome::Applied)
    }
}

impl Observed {
    pub(super) fn new(policy: HeadPolicy) -> Self {
        Self {
            policy,
            ticks: 0,
            commits: Vec::new(),
            asked: HashMap::new(),
            holds: Vec::new(),
            by_token: HashMap::new(),
            renewals: Vec::new(),
            settlings: Vec::new(),
            deliveries: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A call begins now.
    pub(super) fn begin(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn span(&mut self, began: u64) -> Span {
        Span { began, ended: self.begin() }
    }

    /// A transaction enqueues these.
    pub(super) fn enqueueing(&mut self, messages: Vec<Message>) -> Enqueued {
        Enqueued { began: self.begin(), asked: u64::MAX, messages }
    }

    /// Its commit is asked for.
    pub(super) fn committing(&mut self, enqueued: &mut Enqueued) {
        enqueued.asked = self.begin();
    }

    /// Its commit was acknowledged, or not.
    pub(super) fn committed(&mut self, enqueued: Enqueued, acknowledged: bool) {
        let Enqueued { began, asked, messages } = enqueued;
        let mut span = self.span(began);
        if !acknowledged {
            span.ended = u64::MAX;
        }
        self.commits.push(Commit { span, asked, messages, acknowledged });
    }

    /// A claim is asked for.
    pub(super) fn claiming(&mut self, claim: &Claim) {
        let first = self.begin();
        self.asked.entry(claim.nonce).or_insert(Asked { first, lost: false });
    }

    /// Its answer was lost.
    pub(super) fn claim_lost(&mut self, claim: &Claim) {
        if let Some(asked) = self.asked.get_mut(&claim.nonce) {
            asked.lost = true;
        }
    }

    /// A claim was answered.
    ///
    /// # Errors
    /// A repeated claim that answers a run otherwise.
    pub(super) fn claimed(
        &mut self,
        claim: &Claim,
        claimed: &Claimed,
        entries: impl Fn(&Run) -> Vec<(MessageId, u32)>,
    ) -> Result<(), Violation> {
        self.counts.claims += 1;
        let asked = self.asked.get(&claim.nonce).copied();
        let span = self.span(asked.map_or(0, |asked| asked.first));
        let was_lost = asked.is_some_and(|asked| asked.lost);
        for run in &claimed.runs {
            let entries = entries(run);
            if let Some(known) = self.by_token.get(&run.token) {
                self.counts.repeated += 1;
                let known = &self.holds[*known].entries;
                ensure!(
                    *known == entries,
                    ANSWERS,
                    format!("a repeated claim answers {:?} as before: {known:?}", run.token),
                    "{entries:?}"
                );
                continue;
            }
            self.by_token.insert(run.token, self.holds.len());
            self.holds.push(Hold {
                token: run.token,
                span,
                // A request that was given up may land late, when others have already been told a later time.
                claimed_at: if was_lost { claimed.now } else { run.claimed_at },
                until: run.lease_until,
                entries,
            });
        }
        Ok(())
    }

    /// A renewal was answered.
    pub(super) fn renewed(&mut self, began: u64, token: Token, answer: Renewed) {
        let span = self.span(began);
        self.renewals.push(Renewal { token, span, answer });
    }

    /// A settlement was answered, or not.
    pub(super) fn settled(&mut self, began: u64, token: Token, report: Report, answer: Option<Settled>) {
        let span = self.span(began);
        self.counts.fenced += u64::from(answer.is_some_and(|answer| answer.outcome == Outcome::Fenced));
        self.settlings.push(Settling { token, span, report, answer });
    }

    /// A relay publishes a message.
    pub(super) fn delivered(&mut self, message: MessageId) {
        self.deliveries.push(message);
    }

    /// What became of the messages, once everything was drained.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals { lost: self.lost().len() as u64, ..Totals::default() };
        let mut arrived = self.arrived();
        for (message, acknowledged) in self.committed_messages() {
            let count = arrived.remove(&message.id()).unwrap_or(0);
            totals.attempted += 1;
            totals.acknowledged += u64::from(acknowledged);
            totals.delivered += u64::from(count > 0);
            totals.duplicated += count.saturating_sub(1);
            totals.recovered += u64::from(count > 0 && !acknowledged);
        }
        totals.unexpected = arrived.values().sum();
        totals
    }

    /// How often each message was delivered.
    fn arrived(&self) -> HashMap<MessageId, u64> {
        let mut arrived = HashMap::new();
        for message in &self.deliveries {
            *arrived.entry(*message).or_default() += 1;
        }
        arrived
    }

    /// What was acknowledged and is neither delivered nor, as far as anybody knows, dead or behind a dead head.
    fn lost(&self) -> Vec<MessageId> {
        let (arrived, perhaps_dead) = (self.arrived(), self.perhaps_dead());
        let dead_keys: HashSet<&Text> = self
            .committed_messages()
            .filter(|(message, _)| self.policy == HeadPolicy::Block && perhaps_dead.contains(&message.id()))
            .filter_map(|(message, _)| message.key())
            .collect();
        let acknowledged = self.committed_messages().filter(|(_, acknowledged)| *acknowledged);
        acknowledged
            .map(|(message, _)| message)
            .filter(|message| !arrived.contains_key(&message.id()) && !perhaps_dead.contains(&message.id()))
            .filter(|message| message.key().is_none_or(|key| !dead_keys.contains(key)))
            .map(Message::id)
            .collect()
    }

    fn committed_messages(&self) -> impl Iterator<Item = (&Message, bool)> {
        self.commits
            .iter()
            .flat_map(|commit| commit.messages.iter().map(|message| (message, commit.acknowledged)))
    }

    fn perhaps_dead(&self) -> HashSet<MessageId> {
        let reports = self.settlings.iter().filter(|settling| settling.may_have_applied());
        reports
            .flat_map(|settling| self.verdicts_of(settling))
            .filter(|(_, verdict)| matches!(verdict, Verdict::Bury { .. }))
            .map(|(message, _)| message)
            .collect()
    }

    /// The messages of a settlement with their verdicts; none if the run was handed back.
    fn verdicts_of<'a>(
        &'a self,
        settling: &'a Settling,
    ) -> impl Iterator<Item = (MessageId, &'a Verdict)> + use<'a> {
        let verdicts = match &settling.report {
            Report::Verdicts(verdicts) => &verdicts[..],
            Report::HandBack(_) => &[],
        };
        let entries = self.by_token.get(&settling.token).map_or(&[][..], |hold| &self.holds[*hold].entries);
        entries.iter().map(|(message, _)| *message).zip(verdicts)
    }
}
