//! Claims: repeated, expired, solo and ordinary ones.

use super::{Outbox, Place, RunState, Work};
use pillarbox_core::{Claim, Claimed, Command, Entry, Run, State, Text, Timestamp, Token, Transition, step};

impl Outbox {
    pub(crate) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        let mut answer = Claimed { now, ..Claimed::default() };
        self.promote(now);
        if !self.repeat(claim, &mut answer) && claim.limit > 0 {
            self.take_expired(claim, &mut answer);
            if claim.solo {
                self.hand_out_suspect(claim, &mut answer);
            } else {
                self.hand_out_due(claim, &mut answer);
            }
        }
        answer.suspects = u32::try_from(self.suspects.len()).unwrap_or(u32::MAX);
        if answer.entries.len() < claim.limit as usize {
            let waiting = self.waiting.first().map(|first| first.0);
            let lease = self.leases.first().map(|first| first.0);
            answer.next_due = [waiting, lease].into_iter().flatten().min().map(|due| due.max(now));
        }
        answer
    }

    /// The same runs again, for a claimant that did not get the answer.
    fn repeat(&self, claim: &Claim, answer: &mut Claimed) -> bool {
        let Some(units) = self.runs_by_nonce.get(&claim.nonce) else { return false };
        for run in units.iter().map(|unit| &self.runs[unit]) {
            if run.until > answer.now {
                self.answer_run(run, answer);
            }
        }
        !answer.runs.is_empty()
    }

    /// Takes runs whose lease ran out: charges the strike and puts their messages back in front, as many as the claim has
    /// room for. Those that nobody needs yet are left to their holders.
    fn take_expired(&mut self, claim: &Claim, answer: &mut Claimed) {
        let mut taken = 0;
        while if claim.solo { self.suspects.is_empty() } else { taken < claim.limit as usize } {
            match self.leases.first() {
                Some(first) if first.0 <= answer.now => {}
                _ => return,
            }
            let Some((_, unit)) = self.leases.pop_first() else { return };
            taken += self.strike(unit, answer);
        }
    }

    fn strike(&mut self, unit: u64, answer: &mut Claimed) -> usize {
        let Some(run) = self.end_run(unit) else { return 0 };
        let now = answer.now;
        let keys = self.keys_of(&run.messages);
        for &place in run.messages.iter().rev() {
            let stored = &mut self.messages[place];
            let struck = stored.record.as_claimable(now, self.guarantees.max_strikes);
            stored.record = struck.expect("the lease has run out");
            let (state, strikes, key) = (stored.record.state, stored.record.strikes, stored.key);
            if state == State::Dead {
                answer.buried += 1;
                let reason = format!(
                    "its relay died {strikes} times while it held this message alone (`max_strikes`)"
                );
                self.lay_to_rest(place, Text::from(reason), now);
            } else if let Some(key) = key {
                self.put_back(place, key);
            } else {
                self.offer(Work::Message(place), now, true);
            }
        }
        self.free_keys(&keys, now, true);
        run.messages.len()
    }

    fn hand_out_suspect(&mut self, claim: &Claim, answer: &mut Claimed) {
        if let Some(work) = self.suspects.pop_front() {
            let place = self.take_head(work);
            self.hand_out(vec![place], claim, answer);
        }
    }

    /// Hands out what is ready, in runs whose messages are all under the same suspicion: so the search for a deadly message
    /// neither spreads nor starts again.
    fn hand_out_due(&mut self, claim: &Claim, answer: &mut Claimed) {
        let mut room = claim.limit as usize;
        let mut run = Vec::new();
        let (mut suspicion, mut longest) = (0, 0);
        while room > 0
            && let Some(work) = self.ready.pop_front()
        {
            let limit = self.messages[self.head(work)].record.run_limit;
            if run.len() == longest || limit != suspicion {
                if !run.is_empty() {
                    self.hand_out(std::mem::take(&mut run), claim, answer);
                }
                suspicion = limit;
                longest = room.min(limit as usize).min(self.guarantees.max_run as usize);
                run.reserve_exact(longest.min(self.ready.len() + 1));
            }
            let before = run.len();
            run.push(self.take_head(work));
            if let Work::Key(key) = work {
                self.take_more(key, suspicion, longest, answer.now, &mut run);
            }
            room -= run.len() - before;
        }
        if !run.is_empty() {
            self.hand_out(run, claim, answer);
        }
    }

    fn take_head(&mut self, work: Work) -> u32 {
        let place = self.head(work);
        if let Work::Key(key) = work {
            self.set_place(key, Place::Held);
            self.keys[key].queue.pop_front();
        }
        place
    }

    /// Adds messages that follow in the key, as long as they are due and under the same suspicion.
    fn take_more(&mut self, key: u32, suspicion: u32, longest: usize, now: Timestamp, run: &mut Vec<u32>) {
        while run.len() < longest
            && let Some(&next) = self.keys[key].queue.front()
        {
            let record = &self.messages[next].record;
            if record.due_at > now || record.run_limit != suspicion {
                return;
            }
            self.keys[key].queue.pop_front();
            run.push(next);
        }
    }

    fn hand_out(&mut self, messages: Vec<u32>, claim: &Claim, answer: &mut Claimed) {
        let number = self.next_number();
        let token = Token { unit: number, fence: number, nonce: claim.nonce };
        let run = u32::try_from(messages.len()).expect("a run is at most as long as a claim's limit");
        let command = Command::Claim { token, lease: claim.lease, run, solo: claim.solo };
        for &place in &messages {
            let record = &mut self.messages[place].record;
            match step(record, &command, answer.now, self.guarantees.max_strikes) {
                Ok(Transition::Claimed(claimed)) => *record = claimed,
                other => unreachable!("only what may be claimed is ready, and {record:?} answered {other:?}"),
            }
        }
        self.claimed += u64::from(run);
        let until = answer.now.after(claim.lease);
        let state = RunState { token, claimed_at: answer.now, until, messages };
        self.answer_run(&state, answer);
        self.leases.insert((until, number));
        self.runs_by_nonce.entry(claim.nonce).or_default().push(number);
        self.runs.insert(number, state);
    }

    fn answer_run(&self, run: &RunState, answer: &mut Claimed) {
        // Both are bounded by a claim's limit, which is a `u32`.
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = count(answer.entries.len());
        answer.entries.extend(run.messages.iter().map(|place| {
            let stored = &self.messages[*place];
            Entry {
                content: stored.content.clone(),
                attempts: stored.record.attempts,
                strikes: stored.record.strikes,
            }
        }));
        answer.runs.push(Run {
            token: run.token,
            claimed_at: run.claimed_at,
            lease_until: run.until,
            start,
            len: count(run.messages.len()),
        });
    }

    /// Forgets a run, whatever became of it; its messages are the caller's.
    pub(super) fn end_run(&mut self, unit: u64) -> Option<RunState> {
        let run = self.runs.remove(&unit)?;
        self.leases.remove(&(run.until, unit));
        self.claimed -= run.messages.len() as u64;
        if let Some(units) = self.runs_by_nonce.get_mut(&run.token.nonce) {
            units.retain(|other| *other != unit);
            if units.is_empty() {
                self.runs_by_nonce.remove(&run.token.nonce);
            }
        }
        Some(run)
    }

    pub(super) fn keys_of(&self, messages: &[u32]) -> Vec<u32> {
        messages.iter().filter_map(|place| self.messages[*place].key).collect()
    }

    /// Lets go of those of these keys that a run has held until now.
    pub(super) fn free_keys(&mut self, keys: &[u32], now: Timestamp, in_front: bool) {
        for &key in keys {
            if self.keys.value(key).is_some_and(|key| key.place == Place::Held) {
                self.free_key(key, now, in_front);
            }
        }
    }
}
