//! Which of the due records one claim hands out, in which runs.

use super::{Change, Due, StoredRecord};
use crate::{
    Claim, Claimed, Command, Entry, HeadPolicy, Record, Run, State, StorageGuarantees, Text, Token,
    Transition, step,
};
use std::collections::HashSet;

/// A claim's answer, and what has to be stored before it may be given.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) claimed: Claimed,
    pub(super) changes: Vec<Change>,
}

/// The runs that one claim gathers.
#[derive(Debug, Default)]
struct Gathering<'a> {
    done: Vec<Vec<&'a StoredRecord>>,
    open: Vec<&'a StoredRecord>,
    open_keys: HashSet<&'a Text>,
    /// The smallest `run_limit` in the open run.
    limit: u32,
}

impl<'a> Gathering<'a> {
    /// Adds a record to the open run, or to a new one. Answers whether it could: a key never spans two runs, since they could
    /// end apart.
    fn add(&mut self, stored: &'a StoredRecord, run_limit: u32) -> bool {
        let limit = if self.open.is_empty() { run_limit } else { self.limit.min(run_limit) };
        if self.open.len() as u64 >= u64::from(limit) {
            if stored.key().is_some_and(|key| self.open_keys.contains(key)) {
                return false;
            }
            self.close();
            return self.add(stored, run_limit);
        }
        self.limit = limit;
        self.open_keys.extend(stored.key());
        self.open.push(stored);
        true
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn count(&self) -> usize {
        self.open.len() + self.done.iter().map(Vec::len).sum::<usize>()
    }
}

pub(super) fn plan(due: &Due, claim: &Claim, guarantees: &StorageGuarantees) -> Plan {
    let mut plan = Plan::default();
    plan.claimed.now = due.now;
    let mut gathering = Gathering::default();
    // Keys that this claim leaves alone from here on, since an earlier message of theirs stays behind.
    let mut left: HashSet<&Text> = HashSet::new();
    for stored in &due.records {
        if stored.key().is_some_and(|key| left.contains(key)) {
            continue;
        }
        let Some(free) = stored.record.as_claimable(due.now, guarantees.max_strikes) else {
            left.extend(stored.key());
            continue;
        };
        if free.state == State::Dead {
            let reason = format!("its relay died {} times while it held this message alone", free.strikes);
            plan.change(stored, free, Some(Text::from(reason)));
            plan.claimed.buried += 1;
            if guarantees.head_policy == HeadPolicy::Block {
                left.extend(stored.key());
            }
            continue;
        }
        let room = gathering.count() < claim.limit as usize;
        let wanted = free.is_suspect() == claim.solo && room && !(claim.solo && gathering.count() > 0);
        let taken = wanted && gathering.add(stored, free.run_limit.min(guarantees.max_run));
        if !taken {
            left.extend(stored.key());
            if free.is_suspect() && !claim.solo && free != stored.record {
                plan.change(stored, free, None);
            }
        }
        plan.claimed.suspects += u32::from(free.is_suspect() && !taken);
    }
    gathering.close();
    for run in gathering.done {
        plan.hand_out(&run, claim, due, guarantees.max_strikes);
    }
    if plan.claimed.entries.len() < claim.limit as usize {
        plan.claimed.next_due = due.next_due;
    }
    plan
}

impl Plan {
    fn change(&mut self, stored: &StoredRecord, record: Record, reason: Option<Text>) {
        self.changes.push(Change { position: stored.position, expected: stored.record, record, reason });
    }

    fn hand_out(&mut self, run: &[&StoredRecord], claim: &Claim, due: &Due, max_strikes: u32) {
        let fence = 1 + run.iter().map(|stored| stored.record.fence).max().unwrap_or(0);
        let unit = run.first().map_or(0, |stored| stored.position);
        let token = Token { unit, fence, nonce: claim.nonce };
        let length = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let command = Command::Claim { token, lease: claim.lease, run: length, solo: claim.solo };
        let start = u32::try_from(self.claimed.entries.len()).unwrap_or(u32::MAX);
        for stored in run {
            // What was gathered is claimable, in a run of this length.
            let Ok(Transition::Claimed(record)) = step(&stored.record, &command, due.now, max_strikes) else {
                continue;
            };
            self.change(stored, record, None);
            let Record { attempts, strikes, .. } = record;
            self.claimed.entries.push(Entry { content: stored.content.clone(), attempts, strikes });
        }
        let lease_until = due.now.after(claim.lease);
        self.claimed.runs.push(Run { token, claimed_at: due.now, lease_until, start, len: length });
    }
}
