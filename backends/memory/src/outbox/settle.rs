//! Renewals and settlements.

use super::{Outbox, RunState, Stored, Work};
use pillarbox_core::{
    Command, Content, Error, ErrorKind, Outcome, Rejected, Renewed, Settled, Settlement, Settlements,
    Timestamp, Token, Transition, Verdict, check_verdicts, step,
};
use std::time::Duration;

impl Outbox {
    pub(crate) fn renew(&mut self, token: Token, lease: Duration, now: Timestamp) -> Renewed {
        let standing = self.standing(token);
        if standing != Outcome::Applied {
            return Renewed { outcome: standing, at: now, lease_until: None };
        }
        let run = self.runs.get_mut(&token.unit).expect("the token is current");
        for &place in &run.messages {
            let record = &mut self.messages[place].record;
            let renewed = step(record, &Command::Renew { token, lease }, now, self.guarantees.max_strikes);
            *record = stored(renewed);
        }
        self.leases.remove(&(run.until, token.unit));
        run.until = run.until.max(now.after(lease));
        self.leases.insert((run.until, token.unit));
        Renewed { outcome: Outcome::Applied, at: now, lease_until: Some(run.until) }
    }

    /// First everything is checked, then everything is changed.
    pub(crate) fn settle(
        &mut self,
        settlements: &Settlements,
        now: Timestamp,
    ) -> Result<Vec<Settled>, Error> {
        for (token, settlement) in settlements.iter() {
            if let Settlement::Verdicts(verdicts) = settlement
                && self.standing(token) == Outcome::Applied
            {
                self.check(&self.runs[&token.unit], verdicts)?;
            }
        }
        let answers = settlements.iter().map(|(token, settlement)| {
            let outcome = self.standing(token);
            if outcome == Outcome::Applied {
                self.settle_run(token, &settlement, now);
            }
            Settled { outcome, at: now }
        });
        Ok(answers.collect())
    }

    /// How a token stands: `Applied` says that it is current.
    fn standing(&self, token: Token) -> Outcome {
        match self.runs.get(&token.unit) {
            Some(run) if run.token == token => Outcome::Applied,
            _ if self.settled.contains(&token) => Outcome::AlreadyApplied,
            _ => Outcome::Fenced,
        }
    }

    /// One verdict per message, and per key the shape that [`Verdict`] describes.
    fn check(&self, run: &RunState, verdicts: &[Verdict]) -> Result<(), Error> {
        if verdicts.len() != run.messages.len() {
            let (messages, given) = (run.messages.len(), verdicts.len());
            return Err(Error::new(ErrorKind::Rejected, "settle")
                .describe(format!("a run has {messages} messages and was given {given} verdicts"))
                .not_applied());
        }
        if verdicts.iter().all(|verdict| *verdict == Verdict::Published) {
            return Ok(());
        }
        let keys = run.messages.iter().map(|place| match &self.messages[*place].content {
            Content::Message(message) => message.key(),
            Content::Undecodable(_) => None,
        });
        check_verdicts(keys.zip(verdicts), self.guarantees.head_policy)
    }

    fn settle_run(&mut self, token: Token, settlement: &Settlement<'_>, now: Timestamp) {
        let Some(run) = self.end_run(token.unit) else { return };
        self.settled.note(token);
        let keys = self.keys_of(&run.messages);
        // From the back, so that what returns to a key's front ends up in order.
        for (index, &place) in run.messages.iter().enumerate().rev() {
            let command = match settlement {
                Settlement::Verdicts(verdicts) => Command::Settle { token, verdict: &verdicts[index] },
                Settlement::HandBack { after } => Command::HandBack { token, after: *after },
            };
            let transition = step(&self.messages[place].record, &command, now, self.guarantees.max_strikes);
            self.messages[place].record = stored(transition);
            match (transition, command) {
                (Ok(Transition::Published(_)), _) => self.publish(place, now),
                (_, Command::Settle { verdict: Verdict::Bury { reason }, .. }) => {
                    self.lay_to_rest(place, reason.clone(), now);
                }
                (_, Command::Settle { verdict: Verdict::Retry { error, .. }, .. }) => {
                    self.messages[place].reason = Some(error.clone());
                    self.give_back(place, now);
                }
                _ => self.give_back(place, now),
            }
        }
        self.free_keys(&keys, now, false);
    }

    fn give_back(&mut self, place: u32, now: Timestamp) {
        match self.messages[place].key {
            Some(key) => self.put_back(place, key),
            None => self.offer(Work::Message(place), now, false),
        }
    }

    fn publish(&mut self, place: u32, now: Timestamp) {
        if self.keep_published {
            let Stored { ended_at, key, .. } = &mut self.messages[place];
            *ended_at = Some(now);
            *key = None;
            self.published.push_back(place);
        } else {
            self.remove(place);
        }
    }
}

/// The record after a transition of a run whose token is current.
fn stored(transition: Result<Transition, Rejected>) -> pillarbox_core::Record {
    match transition {
        Ok(transition) => *transition.record().expect("only a discard leaves no record"),
        Err(rejected) => unreachable!("the token is current for all messages of its run: {rejected}"),
    }
}
