//! When to claim, and what becomes of the answer.

use super::destinations::scaled;
use super::held::EntryRef;
use super::stopping::Phase;
use super::{Command, Machine};
use crate::{
    Claim, Claimed, Effect, Error, ErrorKind, Message, Moment, Nonce, Observation, Text, Transport, Verdict,
};
use std::time::Duration;

/// The state of claiming.
#[derive(Debug, Default)]
pub(super) struct Claiming {
    /// Not before, unless there is a reason.
    at: Moment,
    /// The last answer was full: more work is there.
    hot: bool,
    /// The last answer was short while runs were held: what lay behind them may be free once they are settled.
    again_when_settled: bool,
    solo: Solo,
    open: Vec<OpenClaim>,
    /// Answers in a row that brought nothing.
    empty: u32,
    /// Answers in a row that brought only messages of paused destinations.
    set_aside: u32,
    /// Empty between two answers, as the next: buffers.
    undecodable: Vec<(EntryRef, Text)>,
    heads: Vec<EntryRef>,
}

/// Suspects are taken one at a time, alone, in turn with ordinary claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Solo {
    #[default]
    No,
    /// Some wait: hold nothing, then take one.
    Wanted,
    /// One was asked for, or is held.
    Busy,
}

#[derive(Clone, Copy, Debug)]
struct OpenClaim {
    claim: Claim,
    /// When it was first sent: the lease counts from before.
    sent: Moment,
    /// The answer was lost: repeat it with its nonce.
    repeat: bool,
    /// An answer was lost at least once: a later refusal says nothing of what was taken then.
    uncertain: bool,
    /// A hint came, or a run was settled, while it was on its way: it may have missed what that made claimable.
    overtaken: bool,
}

/// So many answers of nothing but paused messages may follow each other at once; then they are spaced.
const SET_ASIDE_AT_ONCE: u32 = 10;
const SET_ASIDE_SPACING: Duration = Duration::from_millis(50);

impl Machine {
    /// When a claim can be sent if nothing else happens; `None` while something else has to happen first.
    pub(super) fn claim_due(&self) -> Option<Moment> {
        let store = self.store.until;
        if self.claiming.open.iter().any(|open| open.repeat) {
            return Some(store);
        }
        if !matches!(self.phase, Phase::Running) || self.all_paused() {
            return None;
        }
        let open = u32::try_from(self.claiming.open.len()).unwrap_or(u32::MAX);
        match self.claiming.solo {
            Solo::Wanted => (open == 0 && self.held.messages() == 0).then_some(store),
            Solo::Busy => None,
            Solo::No => {
                let claims = if self.claiming.hot { self.config.claims_in_flight } else { 1 };
                let asked: u32 = self.claiming.open.iter().map(|open| open.claim.limit).sum();
                let room = self.config.held_at_most().saturating_sub(self.held.messages() + asked);
                let fits = open < claims && room >= self.config.batch_size;
                fits.then(|| store.max(self.claiming.at))
            }
        }
    }

    pub(super) fn next_claim(&mut self, now: Moment) -> Option<Command> {
        if self.claim_due()? > now {
            return None;
        }
        let deadline = self.store_deadline(now);
        if let Some(open) = self.claiming.open.iter_mut().find(|open| open.repeat) {
            open.repeat = false;
            return Some(Command::Claim { claim: open.claim, deadline });
        }
        let solo = self.claiming.solo == Solo::Wanted;
        if solo {
            self.claiming.solo = Solo::Busy;
        }
        let nonce = Nonce::from_words((self.random)(), (self.random)());
        let limit = if solo { 1 } else { self.config.batch_size };
        let claim = Claim { limit, lease: self.config.lease, nonce, solo };
        let open = OpenClaim { claim, sent: now, repeat: false, uncertain: false, overtaken: false };
        self.claiming.open.push(open);
        Some(Command::Claim { claim, deadline })
    }

    pub(super) fn claim_now(&mut self, now: Moment) {
        self.claiming.at = self.claiming.at.min(now);
    }

    pub(super) fn on_hint(&mut self, now: Moment) {
        self.overtake_open_claims();
        self.claim_now(now);
    }

    fn overtake_open_claims(&mut self) {
        for open in &mut self.claiming.open {
            open.overtaken = true;
        }
    }

    pub(super) fn on_claimed(
        &mut self,
        now: Moment,
        nonce: Nonce,
        result: Result<Claimed, Error>,
        transport: &impl Transport,
    ) {
        let Some(place) = self.claiming.open.iter().position(|open| open.claim.nonce == nonce) else {
            return;
        };
        match result {
            Ok(claimed) => {
                let open = self.claiming.open.swap_remove(place);
                self.store_answered();
                self.observer.observe(&Observation::Claimed {
                    messages: length(&claimed.entries),
                    runs: length(&claimed.runs),
                    buried: claimed.buried,
                    suspects: claimed.suspects,
                    took: now.since(open.sent),
                });
                self.plan_next_claim(now, &open, &claimed);
                self.take_in(now, open, claimed, transport);
            }
            Err(error) => {
                let open = &mut self.claiming.open[place];
                open.uncertain |=
                    error.effect() == Effect::Unknown && error.kind() != ErrorKind::Misconfigured;
                if !open.uncertain || now >= open.sent.after(open.claim.lease) {
                    // What it may have taken has run out by now; a new claim finds it.
                    let open = self.claiming.open.swap_remove(place);
                    self.solo_ended(&open.claim);
                } else {
                    open.repeat = true;
                }
                self.store_failed(now, error);
            }
        }
    }

    /// A solo claim is over, and ordinary ones have their turn.
    fn solo_ended(&mut self, claim: &Claim) {
        if claim.solo {
            self.claiming.solo = Solo::No;
        }
    }

    fn plan_next_claim(&mut self, now: Moment, open: &OpenClaim, claimed: &Claimed) {
        let claim = &open.claim;
        let found = length(&claimed.entries);
        if claim.solo {
            if found == 0 {
                self.solo_ended(claim);
            }
        } else if claimed.suspects > 0 && self.claiming.solo == Solo::No {
            self.claiming.solo = Solo::Wanted;
        }
        self.claiming.hot = found >= claim.limit && !claim.solo;
        if self.claiming.hot || open.overtaken {
            self.claiming.empty = 0;
            self.claiming.at = now;
            return;
        }
        self.claiming.empty = if found == 0 { self.claiming.empty.saturating_add(1) } else { 0 };
        self.claiming.again_when_settled = true;
        // Between three quarters of the interval and the whole, so that relays do not poll in step.
        let interval = self.config.polling_interval;
        let poll = interval - scaled(interval / 4, (self.random)());
        let due = claimed.next_due.map_or(poll, |at| {
            // A store that announces work and does not hand it out is not asked in a hot loop.
            let patience = Duration::from_millis(1 << self.claiming.empty.min(7));
            at.since(claimed.now).max(patience)
        });
        self.claiming.at = now.after(poll.min(due));
    }

    fn take_in(&mut self, now: Moment, open: OpenClaim, claimed: Claimed, transport: &impl Transport) {
        if claimed.runs.is_empty() {
            return;
        }
        let lease_ends = open.sent.after(open.claim.lease);
        let mut undecodable = std::mem::take(&mut self.claiming.undecodable);
        let destination = |message: &Message| transport.destination(message);
        let slot = self.held.add(claimed, lease_ends, open.claim.solo, destination, &mut undecodable);
        for (at, reason) in undecodable.drain(..) {
            let id = self.held.entry(at).id;
            self.observer.observe(&Observation::Buried { id, reason: &reason });
            self.held.decide(at, Verdict::Bury { reason });
        }
        self.claiming.undecodable = undecodable;
        self.leasing.expect(lease_ends, self.config.lease, open.claim.solo.then_some(now));
        let mut heads = std::mem::take(&mut self.claiming.heads);
        heads.extend(self.held.heads(slot));
        for at in &heads {
            let id = self.held.entry(*at).destination;
            self.add_destination(id, || transport.guarantees(id));
        }
        // A suspect waits for its renewal.
        if !open.claim.solo || !matches!(self.phase, Phase::Running) {
            self.make_heads_ready(now, &heads);
        }
        heads.clear();
        self.claiming.heads = heads;
    }

    /// Queues the messages of a claim that wait for nobody.
    fn make_heads_ready(&mut self, now: Moment, heads: &[EntryRef]) {
        let mut queued = false;
        for at in heads {
            queued |= self.make_ready(now, *at);
        }
        self.claiming.set_aside = if queued { 0 } else { self.claiming.set_aside.saturating_add(1) };
        if self.claiming.set_aside > SET_ASIDE_AT_ONCE {
            self.claiming.at = self.claiming.at.max(now.after(SET_ASIDE_SPACING));
        }
    }

    /// Queues a message whose turn has come. Answers whether it will be sent: not while its destination is paused or the
    /// relay stops.
    pub(super) fn make_ready(&mut self, now: Moment, at: EntryRef) -> bool {
        if !matches!(self.phase, Phase::Running) {
            self.held.decide(at, Verdict::Release { after: Duration::ZERO });
            self.release_rest_of_key(at);
            return false;
        }
        let id = self.held.entry(at).destination;
        if !self.destination(id).flows() {
            self.set_aside(now, at, id);
            return false;
        }
        self.destination(id).ready.push_back(at);
        true
    }

    /// A run was settled: what lay behind it may be free now.
    pub(super) fn settled_some(&mut self, now: Moment) {
        self.overtake_open_claims();
        if std::mem::take(&mut self.claiming.again_when_settled) {
            self.claim_now(now);
        }
        if self.claiming.solo == Solo::Busy && self.held.messages() == 0 && self.claiming.open.is_empty() {
            self.claiming.solo = Solo::No;
            self.claim_now(now);
        }
    }

    pub(super) fn has_open_claims(&self) -> bool {
        !self.claiming.open.is_empty()
    }
}

fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
