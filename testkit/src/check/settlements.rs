use super::model::Standing;
use super::{Checker, Rule};
use crate::history::{SettlementSeen, VerdictSeen};
use pillarbox_core::{HeadPolicy, Outcome, Record, Renewed, Settled, Timestamp, Token};
use std::time::Duration;

impl Checker<'_> {
    pub(super) fn on_renewed(&mut self, began: u32, lease: Duration, answers: &[(Token, Renewed)]) {
        for (token, answer) in answers {
            let Some(run) = self.check_outcome(began, token, answer.outcome, answer.at) else { continue };
            if answer.outcome != Outcome::Applied {
                continue;
            }
            let until = self.model.runs[run as usize].until;
            let asked = until.max(answer.at.after(lease));
            if answer.lease_until != Some(asked) {
                let first = self.model.messages_of(run).first().copied();
                self.violate(Rule::Lease, first, || {
                    format!("renewed until {:?}, where {asked:?} was due", answer.lease_until)
                });
            }
            let held = &mut self.model.runs[run as usize];
            held.until = until.max(answer.lease_until.unwrap_or(until));
            held.renewed = true;
        }
    }

    pub(super) fn on_settled(&mut self, began: u32, answers: &[(Token, SettlementSeen, Settled)]) {
        for (token, settlement, answer) in answers {
            let Some(run) = self.check_outcome(began, token, answer.outcome, answer.at) else { continue };
            if answer.outcome == Outcome::Applied && !self.model.runs[run as usize].is_settled {
                self.apply(run, settlement, answer.at);
            } else if answer.outcome == Outcome::AlreadyApplied {
                self.checked.situations.already_applied += 1;
            }
        }
    }

    /// Whether a token was answered as it stands. The run, if it is known.
    fn check_outcome(&mut self, began: u32, token: &Token, outcome: Outcome, at: Timestamp) -> Option<u32> {
        self.checked.situations.fenced += u64::from(outcome == Outcome::Fenced);
        let Some(run) = self.model.run_of(token) else {
            if outcome != Outcome::Fenced && !self.model.is_loose {
                self.violate(Rule::Stale, None, || format!("{token:?} was never handed out"));
            }
            return None;
        };
        let record = u32::try_from(self.record).unwrap_or(u32::MAX);
        let held = &self.model.runs[run as usize];
        let (is_settled, settled, until) = (held.is_settled, held.settled, held.until);
        let is_settling = self.model.is_settling(run, record) && self.model.is_loose;
        let messages = self.model.messages_of(run);
        let first = messages.first().copied();
        if self.model.runs[run as usize].is_doubtful
            || messages.iter().any(|number| self.model.messages[*number as usize].is_doubtful)
        {
            return Some(run);
        }
        let taken = messages.iter().copied().find(|number| {
            let message = &self.model.messages[*number as usize];
            message.holder != Some(run)
                && message.holder.is_none_or(|other| self.model.runs[other as usize].record < began)
        });
        match outcome {
            // Calls that overlap may have had their effects in either order.
            Outcome::Applied if is_settled && settled >= began => {}
            Outcome::Applied if is_settled => {
                self.violate(Rule::Stale, first, || "its run was settled before".to_owned());
            }
            Outcome::Applied => {
                if let Some(number) = taken {
                    self.violate(Rule::Stale, Some(number), || {
                        "another claim had taken it before this call began".to_owned()
                    });
                }
            }
            Outcome::AlreadyApplied if !is_settled && !is_settling => {
                self.violate(Rule::FalseRepeat, first, || "its run was never settled".to_owned());
            }
            Outcome::AlreadyApplied => {}
            Outcome::Fenced => {
                let nobody_can = self.model.last_claim < until && !self.model.is_loose;
                if !is_settled && !is_settling && taken.is_none() && (at < until || nobody_can) {
                    self.violate(Rule::FalseFence, first, || {
                        format!("at {at:?}, with a lease until {until:?} that nobody has taken")
                    });
                }
            }
        }
        Some(run)
    }

    fn apply(&mut self, run: u32, settlement: &SettlementSeen, at: Timestamp) {
        let held = &mut self.model.runs[run as usize];
        held.is_settled = true;
        held.settled = u32::try_from(self.record).unwrap_or(u32::MAX);
        let messages = self.model.messages_of(run).to_vec();
        for (place, number) in messages.into_iter().enumerate() {
            if self.model.messages[number as usize].holder != Some(run) {
                // It was handed out again before this answer was seen.
                self.model.messages[number as usize].is_doubtful = true;
                continue;
            }
            match settlement {
                SettlementSeen::HandBack(after) => self.model.give_back(number, at, *after),
                SettlementSeen::Verdicts(verdicts) => match verdicts.get(place) {
                    Some(verdict) => self.apply_verdict(number, *verdict, at),
                    None => self.model.messages[number as usize].is_doubtful = true,
                },
            }
        }
    }

    fn apply_verdict(&mut self, number: u32, verdict: VerdictSeen, at: Timestamp) {
        if !matches!(verdict, VerdictSeen::Release(_)) {
            let message = &mut self.model.messages[number as usize];
            (message.strikes, message.run_limit) = (0, Record::UNLIMITED);
        }
        match verdict {
            VerdictSeen::Published => {
                let message = &mut self.model.messages[number as usize];
                message.standing = Standing::Published;
                message.holder = None;
            }
            VerdictSeen::Retry(after) => {
                self.model.messages[number as usize].attempts += 1;
                self.model.give_back(number, at, after);
                self.checked.situations.retried += 1;
                self.checked.situations.parked += u64::from(self.model.has_key(number));
            }
            VerdictSeen::Release(after) => self.model.give_back(number, at, after),
            VerdictSeen::Bury => {
                let message = &self.model.messages[number as usize];
                let (attempts, most) = (message.attempts + 1, self.model.terms.max_attempts);
                if !message.is_refused && attempts < most && !message.is_doubtful {
                    self.violate(Rule::Burial, Some(number), || {
                        format!("by its relay after {attempts} of {most} failed sends, and nobody refuses it")
                    });
                }
                let blocks = self.model.has_key(number) && self.model.terms.head_policy == HeadPolicy::Block;
                self.checked.situations.buried += 1;
                self.checked.situations.blocked += u64::from(blocks);
                self.model.bury(number);
            }
        }
    }
}
