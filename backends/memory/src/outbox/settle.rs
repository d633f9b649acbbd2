//! Taking back.

use super::{Item, Outbox, Slot};
use pillarbox_core::{
    Command, Error, ErrorKind, HeadPolicy, Outcome, Settled, Settlement, Text, Timestamp, Token, Transition,
    Verdict, step,
};
use std::collections::HashMap;

impl Outbox {
    /// Whether a settlement fits its run; one that is not current is answered, not refused.
    pub(crate) fn check(&self, token: Token, settlement: &Settlement<'_>) -> Result<(), Error> {
        let Some(run) = self.runs.get(&token.unit).filter(|run| run.token == token) else { return Ok(()) };
        let Settlement::Verdicts(verdicts) = settlement else { return Ok(()) };
        if verdicts.len() != run.members.len() {
            let (given, asked) = (verdicts.len(), run.members.len());
            return Err(refused(format!(
                "{given} verdicts were given for the {asked} messages of run {token:?}"
            )));
        }
        let mut ended: HashMap<&Text, ()> = HashMap::new();
        for (slot, verdict) in run.members.iter().zip(*verdicts) {
            let Some(key) = self.letter(*slot).message.key() else { continue };
            let ends = match verdict {
                Verdict::Published => false,
                Verdict::Bury { .. } => self.head_policy == HeadPolicy::Block,
                Verdict::Retry { .. } | Verdict::Release { .. } => true,
            };
            let goes_on = !matches!(verdict, Verdict::Release { .. });
            if goes_on && ended.contains_key(key) {
                return Err(refused(format!(
                    "run {token:?} settles a message of key {:?} behind one that comes back; only `Release` may follow",
                    &**key
                )));
            }
            if ends {
                ended.insert(key, ());
            }
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, token: Token, settlement: &Settlement<'_>, now: Timestamp) -> Settled {
        if self.runs.get(&token.unit).is_none_or(|run| run.token != token) {
            return Settled { outcome: self.not_current(token), at: now };
        }
        let Some(run) = self.forget_run(token.unit) else {
            return Settled { outcome: Outcome::Fenced, at: now };
        };
        self.settled.remember(token);
        let mut returning = Vec::new();
        for (place, slot) in run.members.into_iter().enumerate() {
            let command = match settlement {
                // `check` has compared the lengths.
                Settlement::Verdicts(verdicts) => Command::Settle { token, verdict: &verdicts[place] },
                Settlement::HandBack { after } => Command::HandBack { token, after: *after },
            };
            let (max_strikes, keep_published) = (self.max_strikes, self.keep_published);
            let letter = self.letter_mut(slot);
            let Ok(transition) = step(&letter.record, &command, now, max_strikes) else { continue };
            if let Some(record) = transition.record() {
                letter.record = *record;
            }
            match (transition, &command) {
                (Transition::Published(_), _) if keep_published => self.published.push_back((now, slot)),
                (Transition::Published(_), _) => self.remove(slot),
                (Transition::Buried(_), Command::Settle { verdict: Verdict::Bury { reason }, .. }) => {
                    self.bury(slot, reason.clone(), now);
                }
                (Transition::Retried(_), Command::Settle { verdict: Verdict::Retry { error, .. }, .. }) => {
                    letter.reason = Some(error.clone());
                    returning.push(slot);
                }
                _ => returning.push(slot),
            }
        }
        self.put_back(returning, &run.keys, now);
        Settled { outcome: Outcome::Applied, at: now }
    }

    /// Puts messages that come back where they belong, in front of later ones, and frees their keys.
    pub(super) fn put_back(&mut self, returning: Vec<Slot>, keys: &[Text], now: Timestamp) {
        let came_back = !returning.is_empty();
        for slot in returning.into_iter().rev() {
            let letter = self.letter(slot);
            let record = letter.record;
            match letter.message.key().cloned() {
                Some(key) => self.return_to_key(&key, slot),
                None if record.due_at > now => {
                    self.wait_until(record.due_at, Item::Message(slot));
                }
                None if record.is_suspect() => self.suspects.push_back(Item::Message(slot)),
                None => self.ready.push_front(Item::Message(slot)),
            }
        }
        for key in keys {
            self.place_key(key, now, came_back);
        }
    }

    /// Makes a dead letter of a message whose record is dead.
    pub(super) fn bury(&mut self, slot: Slot, reason: Text, now: Timestamp) {
        let number = self.next_sequence();
        let letter = self.letter_mut(slot);
        letter.reason = Some(reason);
        letter.died_at = Some(now);
        let (id, key) = (letter.message.id(), letter.message.key().cloned());
        self.dead.insert(number, slot);
        self.findable.insert(id, slot);
        if self.head_policy == HeadPolicy::Block
            && let Some(key) = key
        {
            self.key_entry(key).blocked_by = Some(slot);
        }
    }
}

fn refused(description: String) -> Error {
    Error::new(ErrorKind::Rejected, "settle").describe(description).not_applied()
}
