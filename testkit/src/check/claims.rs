use super::model::{RunModel, Standing};
use super::{Checker, Rule};
use crate::history::{ClaimSeen, EntrySeen};
use pillarbox_core::{HeadPolicy, Run, Token};

impl Checker<'_> {
    pub(super) fn on_claimed(&mut self, by: u16, seen: &ClaimSeen) {
        self.model.last_claim = self.model.last_claim.max(seen.now);
        let record = u32::try_from(self.record).unwrap_or(u32::MAX);
        let live: Vec<Token> = self
            .model
            .runs_of(&seen.claim.nonce)
            .iter()
            // One that was answered while this call was inside the store may not have been there when it looked.
            .filter(|run| self.model.runs[**run as usize].record < seen.began)
            .filter(|run| self.model.is_current(**run) && self.model.is_live(**run, seen.now, record))
            .map(|run| self.model.runs[*run as usize].token)
            .collect();
        if !live.is_empty() {
            self.checked.situations.claim_repeated += 1;
            let answered: Vec<Token> = seen.runs.iter().map(|run| run.token).collect();
            // Of a message that is stored twice nobody can tell which copy is which.
            let runs = self.model.runs_of(&seen.claim.nonce).iter();
            let is_certain = runs
                .flat_map(|run| self.model.messages_of(*run))
                .all(|number| !self.model.messages[*number as usize].is_doubtful);
            if answered != live && is_certain {
                self.violate(Rule::Repetition, None, || {
                    format!("it had answered {live:?}, still live, and answers {answered:?} now")
                });
            }
        }
        if seen.entries.len() > seen.claim.limit as usize || (seen.claim.solo && seen.entries.len() > 1) {
            self.violate(Rule::Limit, None, || {
                let asked = if seen.claim.solo { 1 } else { seen.claim.limit };
                format!("{asked} were asked for, and {} came", seen.entries.len())
            });
        }
        self.take_buried(seen);
        for run in &seen.runs {
            match self.model.run_of(&run.token) {
                None => self.take_run(by, seen, run),
                Some(known) => self.check_known(seen, run, known),
            }
        }
    }

    /// A run that is answered again is the same as before; a token is never given to another one.
    fn check_known(&mut self, seen: &ClaimSeen, run: &Run, known: u32) {
        let entries = &seen.entries[run.start as usize..][..run.len as usize];
        let messages = entries.iter().filter_map(|entry| entry.message);
        let is_same = messages.eq(self.model.messages_of(known).iter().copied());
        if !is_same || self.model.runs[known as usize].is_settled {
            self.violate(Rule::Fence, None, || format!("{:?} was given twice", run.token));
        }
    }

    /// Which messages a claim buried is known only if it can be just these.
    fn take_buried(&mut self, seen: &ClaimSeen) {
        if seen.buried == 0 {
            return;
        }
        self.checked.situations.struck_out += u64::from(seen.buried);
        let all = 0..u32::try_from(self.model.messages.len()).unwrap_or(u32::MAX);
        let candidates: Vec<u32> =
            all.filter(|number| self.model.is_struck_out(*number, Some(seen.now))).collect();
        let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
        if count == seen.buried {
            candidates.into_iter().for_each(|number| self.model.bury(number));
        } else if count < seen.buried && !self.model.is_loose && !self.has_copies() {
            self.violate(Rule::Burial, None, || {
                format!("a claim buried {}, and {count} had reached the limit of strikes", seen.buried)
            });
        }
    }

    fn has_copies(&self) -> bool {
        self.model.messages.iter().any(|message| message.copies > 1)
    }

    fn take_run(&mut self, by: u16, seen: &ClaimSeen, run: &Run) {
        let entries = &seen.entries[run.start as usize..][..run.len as usize];
        let asked = run.claimed_at.after(seen.claim.lease);
        if run.lease_until != asked {
            self.violate(Rule::Lease, None, || {
                format!(
                    "a lease of {:?} from {:?} on was asked for, and it ends at {:?}",
                    seen.claim.lease, run.claimed_at, run.lease_until
                )
            });
        }
        for (place, entry) in entries.iter().enumerate() {
            let Some(number) = entry.message else { continue };
            let before = &seen.entries[..run.start as usize + place];
            self.check_entry(seen, run, entry, number, before);
            let message = &mut self.model.messages[number as usize];
            message.fence = run.token.fence;
            message.claims += 1;
        }
        let record = u32::try_from(self.record).unwrap_or(u32::MAX);
        self.checked.situations.suspected += u64::from(seen.claim.solo);
        let held = RunModel::new(run.token, by, record, run.lease_until, seen.claim.solo);
        let held = self.model.add_run(held, entries.iter().filter_map(|entry| entry.message));
        for number in entries.iter().filter_map(|entry| entry.message) {
            self.model.messages[number as usize].holder = Some(held);
        }
    }

    fn check_entry(
        &mut self,
        seen: &ClaimSeen,
        run: &Run,
        entry: &EntrySeen,
        number: u32,
        before: &[EntrySeen],
    ) {
        // A storage may read its clock more than once in a claim.
        let now = run.claimed_at;
        let record = u32::try_from(self.record).unwrap_or(u32::MAX);
        if !self.model.messages[number as usize].was_committed {
            self.violate(Rule::Unexpected, Some(number), || {
                "it was claimed before anybody had asked for its commit".to_owned()
            });
        }
        if self.model.messages[number as usize].is_doubtful {
            return;
        }
        let is_over = match self.standing(number) {
            Standing::Open => None,
            Standing::Published => Some("it was published and settled"),
            Standing::Dead => Some("it was dead"),
        };
        if let Some(words) = is_over {
            self.violate(Rule::Terminal, Some(number), || words.to_owned());
            // Nothing else is known of one that rose again.
            self.model.messages[number as usize].is_doubtful = true;
            return;
        }
        if let Some(holder) = self.model.messages[number as usize].holder {
            if self.model.is_settling(holder, record) {
                self.model.messages[number as usize].is_doubtful = true;
                return;
            }
            if self.model.is_live(holder, now, record) {
                let (by, until) =
                    (self.model.runs[holder as usize].by, self.model.runs[holder as usize].until);
                self.violate(Rule::Overlap, Some(number), || {
                    format!("relay {by} holds it until {until:?}, and it was handed out at {now:?}")
                });
                // What the store charges for it is nobody's to know.
                let token = self.model.runs[holder as usize].token;
                self.model.abandon(&[token]);
                return;
            } else {
                self.checked.situations.expired += 1;
                self.model.strike(number, holder);
            }
        }
        let message = &self.model.messages[number as usize];
        let (fence, due_at, limit) = (message.fence, message.due_at, message.run_limit);
        let (attempts, strikes) = (message.attempts, message.strikes);
        if run.token.fence <= fence {
            self.violate(Rule::Fence, Some(number), || {
                format!("its fence was {fence}, and is {} now", run.token.fence)
            });
        }
        if due_at > now {
            self.violate(Rule::Early, Some(number), || format!("due at {due_at:?}, claimed at {now:?}"));
        }
        if entry.attempts != attempts {
            self.violate(Rule::Attempts, Some(number), || {
                format!("{attempts} sends were charged, and the store counts {}", entry.attempts)
            });
        }
        if entry.strikes != strikes {
            self.violate(Rule::Strikes, Some(number), || {
                format!("{strikes} strikes were due, and the store counts {}", entry.strikes)
            });
        }
        if strikes >= self.model.terms.max_strikes {
            self.violate(Rule::Strikes, Some(number), || {
                format!("{strikes} strikes were due, and it was handed out instead of buried")
            });
        }
        if (limit <= 1) != seen.claim.solo || run.len > limit {
            self.violate(Rule::Suspect, Some(number), || {
                let kind = if seen.claim.solo { "a solo" } else { "an ordinary" };
                format!("it may be in a run of {limit}, and went to {kind} claim in a run of {}", run.len)
            });
        }
        self.check_key(seen, number, before);
    }

    /// One claimant per key, and nothing before its turn.
    fn check_key(&mut self, seen: &ClaimSeen, number: u32, before: &[EntrySeen]) {
        let record = u32::try_from(self.record).unwrap_or(u32::MAX);
        let mut wrong = None;
        for other in self.model.others_of_key(number) {
            let message = &self.model.messages[other as usize];
            if message.is_doubtful {
                continue;
            }
            let held_elsewhere = message.holder.filter(|run| {
                let is_other = self.model.runs[*run as usize].token.nonce != seen.claim.nonce;
                is_other && self.model.is_live(*run, seen.now, record)
            });
            if let Some(run) = held_elsewhere {
                let by = self.model.runs[run as usize].by;
                wrong = Some(format!("m{other} of its key is held by a claim of relay {by}"));
                break;
            }
            if !self.model.precedes(other, number) {
                continue;
            }
            let is_over = match message.standing {
                Standing::Published => true,
                Standing::Dead => {
                    self.model.terms.head_policy == HeadPolicy::Continue || message.is_discarded
                }
                Standing::Open => {
                    self.model.is_struck_out(other, Some(seen.now))
                        || message.holder.is_some_and(|run| self.model.is_settling(run, record))
                        || before.iter().any(|entry| entry.message == Some(other))
                }
            };
            if !is_over {
                wrong = Some(format!("m{other} precedes it in its key and is not settled"));
                break;
            }
        }
        if let Some(words) = wrong {
            self.violate(Rule::Order, Some(number), || words);
        }
    }
}
