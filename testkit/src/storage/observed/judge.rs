//! The rules of single messages and of answers, held against what was seen.

use super::{Counts, Hold, Observed, Report, Settling};
use crate::storage::Violation;
use crate::storage::rule::{
    ANSWERS, ATOMIC_CLAIM, COUNTED, ENQUEUE, FENCING, NO_LOSS, STORE_CLOCK, TERMINAL, ensure,
};
use crate::storage::world::name;
use pillarbox_core::{MessageId, Outcome, Timestamp, Token, Verdict};
use std::collections::HashMap;

impl Observed {
    /// Holds all rules against what was seen, once everything was drained. Answers what it has shown.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(in crate::storage) fn judge(&self) -> Result<Counts, Violation> {
        let mut counts = self.counts;
        counts.taken_over = self.claims_are_exclusive()?;
        self.answers_agree()?;
        self.what_is_over_stays_over()?;
        self.attempts_are_counted()?;
        self.nothing_is_early()?;
        self.only_what_was_committed()?;
        self.keys_are_in_order()?;
        let totals = self.totals();
        let lost = self.lost();
        ensure!(
            lost.is_empty(),
            NO_LOSS,
            "what was acknowledged is delivered or dead",
            "{totals}{}",
            self.story(&lost[..1])
        );
        ensure!(totals.unexpected == 0, ENQUEUE, "only what was committed is delivered", "{totals}");
        Ok(counts)
    }

    /// Of two holders of a message one is first, and is settled, or past its lease, when the other one claims. Answers how
    /// often it was past its lease.
    fn claims_are_exclusive(&self) -> Result<u64, Violation> {
        let mut expired = 0;
        for (message, holds) in self.holds_of_messages() {
            for (place, first) in holds.iter().enumerate() {
                for second in &holds[place + 1..] {
                    let is_definite = first.span.precedes(second.span);
                    let in_order = self.may_follow(first, second);
                    ensure!(
                        in_order || (!is_definite && self.may_follow(second, first)),
                        ATOMIC_CLAIM,
                        format!(
                            "{} is held by {:?} until {:?}",
                            name(message),
                            first.token,
                            self.until(first)
                        ),
                        "claimed at {:?} as {:?}, and nobody had settled it{}",
                        second.claimed_at,
                        second.token,
                        self.story(&[message])
                    );
                    ensure!(
                        !is_definite
                            || first.token.unit != second.token.unit
                            || first.token.fence < second.token.fence,
                        FENCING,
                        format!("{} comes back with a fence above {}", name(message), first.token.fence),
                        "{}{}",
                        second.token.fence,
                        self.story(&[message])
                    );
                    expired += u64::from(in_order && second.claimed_at >= self.until(first));
                }
            }
        }
        Ok(expired)
    }

    fn may_follow(&self, first: &Hold, second: &Hold) -> bool {
        let was_settled = || {
            self.settlings_of(first.token).any(|settling| {
                settling.span.began < second.span.ended
                    && settling.answer.is_none_or(|answer| answer.outcome != Outcome::Fenced)
            })
        };
        second.claimed_at >= self.until(first) || was_settled()
    }

    /// A run is settled once, by whom it belongs to, and whoever is current is not turned away.
    fn answers_agree(&self) -> Result<(), Violation> {
        for (place, settling) in self.settlings.iter().enumerate() {
            let Some((answer, hold)) = settling.answer.zip(self.hold(settling.token)) else { continue };
            let others = || self.settlings_of(settling.token).filter(|other| !std::ptr::eq(*other, settling));
            let it = || format!("the settlement of {:?}", settling.token);
            match answer.outcome {
                Outcome::Applied => {
                    let before = self.settlings[..place].iter().filter(|other| other.token == settling.token);
                    let twice = before.filter_map(Settling::was_applied).next();
                    ensure!(
                        twice.is_none(),
                        FENCING,
                        format!("{} is applied once", it()),
                        "applied twice{}",
                        self.story_of(settling.token)
                    );
                    let taken =
                        hold.entries.iter().find_map(|(message, _)| self.taken(*message, hold, settling));
                    ensure!(
                        taken.is_none(),
                        FENCING,
                        format!("{} is fenced", it()),
                        "applied, although {taken:?} had been handed out before it began{}",
                        self.story_of(settling.token)
                    );
                }
                Outcome::AlreadyApplied => {
                    let explained = others()
                        .any(|other| other.span.began < settling.span.ended && other.may_have_applied());
                    ensure!(
                        explained,
                        ANSWERS,
                        format!("{} was not applied before", it()),
                        "{answer:?}{}",
                        self.story_of(settling.token)
                    );
                }
                Outcome::Fenced => {
                    let explained = others().any(|other| other.span.began < settling.span.ended)
                        || answer.at >= self.until_before(hold, settling);
                    ensure!(
                        explained,
                        FENCING,
                        format!("{} is applied, since its lease is live", it()),
                        "{answer:?}{}",
                        self.story_of(settling.token)
                    );
                }
            }
        }
        Ok(())
    }

    /// Who has taken the message from `hold` before the settlement began.
    fn taken(&self, message: MessageId, hold: &Hold, settling: &Settling) -> Option<Token> {
        let later = |other: &&Hold| {
            hold.span.precedes(other.span)
                && other.span.precedes(settling.span)
                && other.entries.iter().any(|(id, _)| *id == message)
        };
        self.holds.iter().find(later).map(|other| other.token)
    }

    fn what_is_over_stays_over(&self) -> Result<(), Violation> {
        let holds = self.holds_of_messages();
        let mut over: HashMap<MessageId, &Settling> = HashMap::new();
        for settling in self.settlings.iter().filter(|settling| settling.was_applied().is_some()) {
            for (message, verdict) in self.verdicts_of(settling) {
                if !matches!(verdict, Verdict::Published | Verdict::Bury { .. }) {
                    continue;
                }
                let it = name(message);
                let twice = over.insert(message, settling);
                ensure!(
                    twice.is_none(),
                    TERMINAL,
                    format!("{it} is published or buried once"),
                    "twice{}",
                    self.story(&[message])
                );
                let again = holds[&message].iter().find(|hold| settling.span.precedes(hold.span));
                ensure!(
                    again.is_none(),
                    TERMINAL,
                    format!("{it} is over and is not claimed again"),
                    "claimed as {:?}{}",
                    again.map(|hold| hold.token),
                    self.story(&[message])
                );
            }
        }
        Ok(())
    }

    /// A message comes with as many attempts as retries were applied: those that were surely so by then, and perhaps those that
    /// may have been.
    fn attempts_are_counted(&self) -> Result<(), Violation> {
        let mut retries: HashMap<MessageId, Vec<&Settling>> = HashMap::new();
        for settling in self.settlings.iter().filter(|settling| settling.may_have_applied()) {
            for (message, verdict) in self.verdicts_of(settling) {
                if matches!(verdict, Verdict::Retry { .. }) {
                    retries.entry(message).or_default().push(settling);
                }
            }
        }
        for hold in &self.holds {
            for (message, attempts) in &hold.entries {
                let of_it = || retries.get(message).into_iter().flatten();
                let least = of_it()
                    .filter(|retry| retry.was_applied().is_some() && retry.span.precedes(hold.span))
                    .count();
                let most = of_it().filter(|retry| retry.span.began < hold.span.ended).count();
                ensure!(
                    (least..=most).contains(&(*attempts as usize)),
                    COUNTED,
                    format!("{} with {least} to {most} attempts", name(*message)),
                    "{attempts}, in {:?}{}",
                    hold.token,
                    self.story(&[*message])
                );
            }
        }
        Ok(())
    }

    fn nothing_is_early(&self) -> Result<(), Violation> {
        let holds = self.holds_of_messages();
        let early = |message: MessageId, due: Timestamp, is_later: &dyn Fn(&Hold) -> bool| {
            let early = holds.get(&message).into_iter().flatten();
            let early = early.filter(|hold| is_later(hold)).find(|hold| hold.claimed_at < due);
            ensure!(
                early.is_none(),
                STORE_CLOCK,
                format!("{} not before {due:?}", name(message)),
                "claimed as {:?}{}",
                early.map(|hold| hold.token),
                self.story(&[message])
            );
            Ok(())
        };
        for (message, _) in self.committed_messages() {
            if let Some(due) = message.deliver_at() {
                early(message.id(), due, &|_| true)?;
            }
        }
        for settling in &self.settlings {
            let Some((applied, hold)) = settling.was_applied().zip(self.hold(settling.token)) else {
                continue;
            };
            let later = |hold: &Hold| settling.span.precedes(hold.span);
            if let Report::HandBack(after) = settling.report {
                for (message, _) in &hold.entries {
                    early(*message, applied.at.after(after), &later)?;
                }
            }
            for (message, verdict) in self.verdicts_of(settling) {
                if let Verdict::Retry { after, .. } | Verdict::Release { after } = verdict {
                    early(message, applied.at.after(*after), &later)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing is handed out before its commit was asked for, and nothing whose commit never was.
    fn only_what_was_committed(&self) -> Result<(), Violation> {
        let commits = self
            .commits
            .iter()
            .flat_map(|commit| commit.messages.iter().map(move |message| (message.id(), commit.asked)));
        let asked: HashMap<MessageId, u64> = commits.collect();
        for (message, holds) in self.holds_of_messages() {
            for hold in holds {
                let when = asked.get(&message);
                ensure!(
                    when.is_some_and(|asked| *asked < hold.span.ended),
                    ENQUEUE,
                    format!("{} is handed out once its commit was asked for", name(message)),
                    "{:?} holds it {}{}",
                    hold.token,
                    if when.is_some() { "before" } else { "although its transaction was rolled back" },
                    self.story(&[message])
                );
            }
        }
        Ok(())
    }

    fn holds_of_messages(&self) -> HashMap<MessageId, Vec<&Hold>> {
        let mut holds: HashMap<MessageId, Vec<&Hold>> = HashMap::new();
        for hold in &self.holds {
            for (message, _) in &hold.entries {
                holds.entry(*message).or_default().push(hold);
            }
        }
        holds
    }

    fn hold(&self, token: Token) -> Option<&Hold> {
        self.by_token.get(&token).map(|hold| &self.holds[*hold])
    }

    fn settlings_of(&self, token: Token) -> impl Iterator<Item = &Settling> {
        self.settlings.iter().filter(move |settling| settling.token == token)
    }

    /// The end of a run's lease after all of its renewals.
    fn until(&self, hold: &Hold) -> Timestamp {
        self.until_where(hold, |_| true)
    }

    /// The end of a run's lease after those renewals that surely preceded this settlement.
    fn until_before(&self, hold: &Hold, settling: &Settling) -> Timestamp {
        self.until_where(hold, |renewal| renewal.span.precedes(settling.span))
    }

    fn until_where(&self, hold: &Hold, counts: impl Fn(&super::Renewal) -> bool) -> Timestamp {
        let renewals = self.renewals.iter().filter(|renewal| renewal.token == hold.token && counts(renewal));
        let applied = renewals.filter(|renewal| renewal.answer.outcome == Outcome::Applied);
        applied.filter_map(|renewal| renewal.answer.lease_until).fold(hold.until, Timestamp::max)
    }
}
