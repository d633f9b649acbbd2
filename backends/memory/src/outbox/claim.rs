//! Handing out.

use super::keys::KeyStage;
use super::{HeldRun, Item, Outbox, Slot};
use pillarbox_core::{
    Claim, Claimed, Command, Content, Entry, Outcome, Record, Renewed, Run, State, Text, Timestamp, Token,
    Transition, step,
};
use std::time::Duration;

/// How many more messages than it hands out a claim moves from waiting to ready.
const PROMOTED_AT_LEAST: u32 = 100;
/// How many runs without an outcome one claim charges at most.
const STRUCK_AT_MOST: u32 = 64;

impl Outbox {
    pub(crate) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        let mut claimed = Claimed { now, ..Claimed::default() };
        if claim.limit == 0 {
            return claimed;
        }
        if self.repeat(claim, now, &mut claimed) {
            return claimed;
        }
        self.promote(now, claim.limit.saturating_mul(2).max(PROMOTED_AT_LEAST));
        self.strike_ended(now, &mut claimed);
        if claim.solo {
            if let Some(item) = self.suspects.pop_front() {
                self.hand_out_suspect(claim, item, &mut claimed);
            }
        } else {
            self.hand_out(claim, &mut claimed);
        }
        claimed.suspects = u32::try_from(self.suspects.len()).unwrap_or(u32::MAX);
        if (claimed.entries.len() as u64) < u64::from(claim.limit) {
            let due = self.later.first_key_value().map(|((due, _), _)| *due);
            let end = self.ends.first_key_value().map(|((end, _), ())| *end);
            claimed.next_due = due.into_iter().chain(end).min().map(|at| at.max(now));
        }
        claimed
    }

    /// The same claim again: the same runs, as long as their leases live.
    fn repeat(&self, claim: &Claim, now: Timestamp, claimed: &mut Claimed) -> bool {
        let units = self.nonces.get(&claim.nonce).map_or(&[][..], Vec::as_slice);
        for run in units.iter().filter_map(|unit| self.runs.get(unit)).filter(|run| run.until > now) {
            self.answer(run, claimed);
        }
        !claimed.runs.is_empty()
    }

    /// Charges the runs whose leases ran out without an outcome: this is the claim that takes them.
    fn strike_ended(&mut self, now: Timestamp, claimed: &mut Claimed) {
        for _ in 0..STRUCK_AT_MOST {
            let Some(((end, unit), ())) = self.ends.first_key_value().map(|(key, ())| (*key, ())) else {
                return;
            };
            if end > now {
                return;
            }
            let Some(run) = self.forget_run(unit) else { return };
            let mut returning = Vec::new();
            for slot in run.members {
                let max_strikes = self.max_strikes;
                let letter = self.letter_mut(slot);
                // Its lease has run out, so it is claimable.
                let struck = letter.record.as_claimable(now, max_strikes).unwrap_or(letter.record);
                letter.record = struck;
                if struck.state == State::Dead {
                    claimed.buried += 1;
                    let reason =
                        format!("its relay died {} times while it held this message alone", struck.strikes);
                    self.bury(slot, Text::from(reason), now);
                } else {
                    returning.push(slot);
                }
            }
            self.put_back(returning, &run.keys, now);
        }
    }

    fn hand_out(&mut self, claim: &Claim, claimed: &mut Claimed) {
        let mut forming = Forming::default();
        let mut room = claim.limit;
        while room > 0
            && let Some(item) = self.ready.pop_front()
        {
            match item {
                Item::Message(slot) => {
                    if !forming.takes(self.letter(slot).record.run_limit) {
                        self.close(&mut forming, claim, claimed);
                    }
                    forming.add(slot, self.letter(slot).record.run_limit);
                    room -= 1;
                }
                Item::Key(key) => room -= self.hand_out_key(key, room, &mut forming, claim, claimed),
            }
        }
        self.close(&mut forming, claim, claimed);
    }

    /// As much of a key as fits into one run. A key never spans two runs: they could end apart.
    fn hand_out_key(
        &mut self,
        key: Text,
        room: u32,
        forming: &mut Forming,
        claim: &Claim,
        claimed: &mut Claimed,
    ) -> u32 {
        let mut taken = 0;
        while taken < room
            && let Some(slot) = self.keys.get(&key).and_then(super::KeyState::head)
        {
            let record = self.letter(slot).record;
            if taken > 0
                && (record.due_at > claimed.now || record.is_suspect() || !forming.takes(record.run_limit))
            {
                break;
            }
            if !forming.takes(record.run_limit) {
                self.close(forming, claim, claimed);
            }
            self.key_entry(key.clone()).queue.pop_front();
            forming.add(slot, record.run_limit);
            taken += 1;
        }
        self.unplace_key(&key, KeyStage::Claimed);
        forming.keys.push(key);
        taken
    }

    fn hand_out_suspect(&mut self, claim: &Claim, item: Item, claimed: &mut Claimed) {
        let mut forming = Forming::default();
        let slot = match item {
            Item::Message(slot) => Some(slot),
            Item::Key(key) => {
                let slot = self.key_entry(key.clone()).queue.pop_front();
                self.unplace_key(&key, KeyStage::Claimed);
                forming.keys.push(key);
                slot
            }
        };
        if let Some(slot) = slot {
            forming.add(slot, 1);
            self.close(&mut forming, claim, claimed);
        }
    }

    /// Makes a run of what was gathered.
    fn close(&mut self, forming: &mut Forming, claim: &Claim, claimed: &mut Claimed) {
        let Forming { members, keys, .. } = std::mem::take(forming);
        if members.is_empty() {
            return;
        }
        self.fence += 1;
        let token = Token { unit: self.fence, fence: self.fence, nonce: claim.nonce };
        let run = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let command = Command::Claim { token, lease: claim.lease, run, solo: claim.solo };
        let max_strikes = self.max_strikes;
        for slot in &members {
            let letter = self.letter_mut(*slot);
            match step(&letter.record, &command, claimed.now, max_strikes) {
                Ok(Transition::Claimed(record)) => letter.record = record,
                other => unreachable!("what is ready is claimable: {other:?}"),
            }
        }
        let held = HeldRun { token, until: claimed.now.after(claim.lease), members, keys };
        self.claimed += u64::from(run);
        self.answer(&held, claimed);
        self.ends.insert((held.until, token.unit), ());
        self.nonces.entry(claim.nonce).or_default().push(token.unit);
        self.runs.insert(token.unit, held);
    }

    fn answer(&self, run: &HeldRun, claimed: &mut Claimed) {
        let start = u32::try_from(claimed.entries.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(run.members.len()).unwrap_or(u32::MAX);
        let mut claimed_at = claimed.now;
        for slot in &run.members {
            let letter = self.letter(*slot);
            if let Some(lease) = letter.record.lease() {
                claimed_at = lease.claimed_at;
            }
            let Record { attempts, strikes, .. } = letter.record;
            claimed.entries.push(Entry {
                content: Content::Message(letter.message.clone()),
                attempts,
                strikes,
            });
        }
        claimed.runs.push(Run { token: run.token, claimed_at, lease_until: run.until, start, len });
    }

    pub(super) fn forget_run(&mut self, unit: u64) -> Option<HeldRun> {
        let run = self.runs.remove(&unit)?;
        self.ends.remove(&(run.until, unit));
        self.claimed -= run.members.len() as u64;
        if let Some(units) = self.nonces.get_mut(&run.token.nonce) {
            units.retain(|other| *other != unit);
            if units.is_empty() {
                self.nonces.remove(&run.token.nonce);
            }
        }
        Some(run)
    }

    pub(crate) fn renew(&mut self, token: Token, lease: Duration, now: Timestamp) -> Renewed {
        let Some(run) = self.runs.get_mut(&token.unit).filter(|run| run.token == token) else {
            let outcome = self.not_current(token);
            return Renewed { outcome, at: now, lease_until: None };
        };
        let (old, new) = (run.until, run.until.max(now.after(lease)));
        run.until = new;
        let members = std::mem::take(&mut run.members);
        for slot in &members {
            let max_strikes = self.max_strikes;
            let letter = self.letter_mut(*slot);
            if let Ok(Transition::Renewed(record)) =
                step(&letter.record, &Command::Renew { token, lease }, now, max_strikes)
            {
                letter.record = record;
            }
        }
        if let Some(run) = self.runs.get_mut(&token.unit) {
            run.members = members;
        }
        self.ends.remove(&(old, token.unit));
        self.ends.insert((new, token.unit), ());
        Renewed { outcome: Outcome::Applied, at: now, lease_until: Some(new) }
    }

    pub(super) fn not_current(&self, token: Token) -> Outcome {
        if self.settled.tokens.contains(&token) { Outcome::AlreadyApplied } else { Outcome::Fenced }
    }
}

/// A run that is being gathered.
#[derive(Debug, Default)]
struct Forming {
    members: Vec<Slot>,
    keys: Vec<Text>,
    /// The smallest `run_limit` of its members.
    limit: Option<u32>,
}

impl Forming {
    fn takes(&self, run_limit: u32) -> bool {
        let limit = self.limit.map_or(run_limit, |limit| limit.min(run_limit));
        (self.members.len() as u64) < u64::from(limit)
    }

    fn add(&mut self, slot: Slot, run_limit: u32) {
        self.limit = Some(self.limit.map_or(run_limit, |limit| limit.min(run_limit)));
        self.members.push(slot);
    }
}
