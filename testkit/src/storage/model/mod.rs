//! What a random walk may see: a model that knows only the rules, not how a store keeps them.

use super::Violation;
use super::rule::{
    ATOMIC_CLAIM, COUNTED, DEAD_HEAD, FENCING, KEY_ORDER, STORE_CLOCK, TERMINAL, broken, ensure,
};
use super::world::{id, name};
use pillarbox_core::{
    Claim, Claimed, HeadPolicy, Message, MessageId, Outcome, Run, Settled, Text, Timestamp, Token, Verdict,
};
use std::collections::HashMap;

/// Everything that was enqueued, and what became of it as far as the answers told.
#[derive(Debug)]
pub(super) struct Model {
    policy: HeadPolicy,
    messages: HashMap<MessageId, Known>,
    /// The messages of each key in the order of their commits.
    keys: HashMap<Text, Vec<MessageId>>,
}

#[derive(Debug)]
struct Known {
    key: Option<Text>,
    attempts: u32,
    strikes: u32,
    /// Not handed out before.
    due_at: Timestamp,
    holder: Option<Holder>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    token: Token,
    lease_until: Timestamp,
    solo: bool,
    renewed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Published,
    Dead,
}

impl Model {
    pub(super) fn new(policy: HeadPolicy) -> Self {
        Self { policy, messages: HashMap::new(), keys: HashMap::new() }
    }

    pub(super) fn committed(&mut self, messages: &[Message]) {
        for message in messages {
            let key = message.key().cloned();
            // One that is scheduled joins its key when it falls due, so its place is not known here.
            if let Some(key) = key.clone().filter(|_| message.deliver_at().is_none()) {
                self.keys.entry(key).or_default().push(message.id());
            }
            let due_at = message.deliver_at().unwrap_or_default();
            let known = Known { key, attempts: 0, strikes: 0, due_at, holder: None, end: None };
            self.messages.insert(message.id(), known);
        }
    }

    /// Checks an answer to a claim against everything that is known, and takes it over.
    pub(super) fn claimed(&mut self, claim: &Claim, claimed: &Claimed) -> Result<(), Violation> {
        ensure!(claimed.buried == 0, COUNTED, "nobody has strikes enough", "{} buried", claimed.buried);
        for run in &claimed.runs {
            for entry in claimed.entries_of(run) {
                let Some(known) = id(entry).and_then(|id| self.messages.get_mut(&id)) else {
                    return Err(broken(ATOMIC_CLAIM, "only what was committed", format!("{entry:?}")));
                };
                let it = id(entry).map(name);
                ensure!(known.end.is_none(), TERMINAL, "nothing that is over", "{it:?}, {:?}", known.end);
                ensure!(
                    known.due_at <= claimed.now,
                    STORE_CLOCK,
                    format!("{it:?} not before {:?}", known.due_at),
                    "at {:?}",
                    claimed.now
                );
                known.taken(run, claim, claimed, it.as_deref().unwrap_or_default())?;
                ensure!(
                    (entry.attempts, entry.strikes) == (known.attempts, known.strikes),
                    COUNTED,
                    format!("{it:?} with {} attempts and {} strikes", known.attempts, known.strikes),
                    "{} and {}",
                    entry.attempts,
                    entry.strikes
                );
            }
        }
        self.keys_are_in_order(claimed)
    }

    /// Of each key only messages before which nothing waits, lives in another claim or blocks.
    fn keys_are_in_order(&self, claimed: &Claimed) -> Result<(), Violation> {
        for run in &claimed.runs {
            for (place, entry) in claimed.entries_of(run).iter().enumerate() {
                let Some(this) = id(entry) else { continue };
                let Some(order) = self.messages[&this].key.as_ref().and_then(|key| self.keys.get(key)) else {
                    continue;
                };
                let Some(at) = order.iter().position(|id| *id == this) else { continue };
                for earlier in &order[..at] {
                    let known = &self.messages[earlier];
                    let blocks = self.policy == HeadPolicy::Block;
                    let is_over = match known.end {
                        Some(End::Published) => true,
                        Some(End::Dead) => !blocks,
                        None => false,
                    };
                    // In this claim, and before it: in an earlier place of its run, or in another run of the same claim.
                    let in_front = known.holder.is_some_and(|holder| holder.token.nonce == run.token.nonce)
                        && !claimed.entries_of(run)[place..].iter().any(|entry| id(entry) == Some(*earlier));
                    let rule = if known.end == Some(End::Dead) { DEAD_HEAD } else { KEY_ORDER };
                    ensure!(
                        is_over || in_front,
                        rule,
                        format!("{} not before {} of the same key", name(this), name(*earlier)),
                        "{} is {known:?}",
                        name(*earlier)
                    );
                }
            }
        }
        Ok(())
    }

    /// Checks the answer to a settlement with these verdicts, and takes it over. `None` is a hand-back.
    pub(super) fn settled(
        &mut self,
        run: &[MessageId],
        token: Token,
        verdicts: Option<&[Verdict]>,
        after: std::time::Duration,
        answer: Settled,
    ) -> Result<(), Violation> {
        let current = |known: &Known| known.holder.is_some_and(|holder| holder.token == token);
        let held = run.iter().filter(|id| current(&self.messages[*id])).count();
        let live = run
            .iter()
            .filter_map(|id| self.messages[id].holder)
            .any(|holder| holder.token == token && holder.lease_until > answer.at);
        let it = format!("the settlement of {token:?}");
        match answer.outcome {
            Outcome::Applied => ensure!(
                held == run.len(),
                FENCING,
                format!("{it} is not applied, since another has taken its messages or settled them"),
                "`Applied`"
            ),
            other => {
                ensure!(!live, FENCING, format!("{it} is applied, since its lease is live"), "{other:?}");
                return Ok(());
            }
        }
        for (place, id) in run.iter().enumerate() {
            let Some(known) = self.messages.get_mut(id) else { continue };
            known.holder = None;
            match verdicts.map(|verdicts| &verdicts[place]) {
                None => known.due_at = answer.at.after(after),
                Some(Verdict::Release { after }) => known.due_at = answer.at.after(*after),
                Some(Verdict::Published) => known.end = Some(End::Published),
                Some(Verdict::Bury { .. }) => known.end = Some(End::Dead),
                Some(Verdict::Retry { after, .. }) => {
                    known.attempts += 1;
                    known.strikes = 0;
                    known.due_at = answer.at.after(*after);
                }
            }
        }
        Ok(())
    }

    /// Checks the answer to a renewal.
    pub(super) fn renewed(
        &mut self,
        run: &[MessageId],
        token: Token,
        answer: pillarbox_core::Renewed,
    ) -> Result<(), Violation> {
        for id in run {
            let Some(holder) = self.messages.get_mut(id).and_then(|known| known.holder.as_mut()) else {
                continue;
            };
            if holder.token != token {
                continue;
            }
            match answer.lease_until {
                Some(until) if answer.outcome == Outcome::Applied => {
                    ensure!(
                        until >= holder.lease_until,
                        FENCING,
                        "a renewal that shortens nothing",
                        "{until:?} after {:?}",
                        holder.lease_until
                    );
                    holder.lease_until = until;
                    holder.renewed = true;
                }
                _ => ensure!(
                    holder.lease_until <= answer.at,
                    FENCING,
                    "the renewal of a live lease is applied",
                    "{answer:?}"
                ),
            }
        }
        Ok(())
    }

    /// What is neither published nor dead, nor held by a dead head of its key.
    pub(super) fn missing(&self) -> Vec<MessageId> {
        let is_blocked = |known: &Known| {
            self.policy == HeadPolicy::Block
                && known.key.is_some()
                && self.messages.values().any(|other| other.key == known.key && other.end == Some(End::Dead))
        };
        let open = self.messages.iter().filter(|(_, known)| known.end.is_none() && !is_blocked(known));
        let mut open: Vec<_> = open.map(|(id, _)| *id).collect();
        open.sort_unstable();
        open
    }
}

impl Known {
    /// It was handed out in `run`: no live claim may have had it, and one that ended without an outcome is charged.
    fn taken(&mut self, run: &Run, claim: &Claim, claimed: &Claimed, it: &str) -> Result<(), Violation> {
        if let Some(holder) = self.holder {
            ensure!(
                holder.lease_until <= claimed.now,
                ATOMIC_CLAIM,
                format!("{it} is in a claim that lives until {:?}", holder.lease_until),
                "handed out at {:?} as {:?}",
                claimed.now,
                run.token
            );
            ensure!(
                holder.token.unit != run.token.unit || holder.token.fence < run.token.fence,
                FENCING,
                format!("a fence above {}", holder.token.fence),
                "{}",
                run.token.fence
            );
            self.strikes += u32::from(holder.solo && holder.renewed);
        }
        self.holder =
            Some(Holder { token: run.token, lease_until: run.lease_until, solo: claim.solo, renewed: false });
        Ok(())
    }
}
