//! Keeping leases: they are renewed before a third of them is left, counted from before the claim was sent.

use super::held::RunRef;
use super::stopping::Phase;
use super::{Command, Machine};
use crate::{Error, Moment, Observation, Outcome, Renewed, Token};
use std::time::Duration;

/// The renewals on their way.
#[derive(Debug, Default)]
pub(super) struct Leasing {
    /// No lease needs a renewal before; `None` while nothing is held.
    next: Option<Moment>,
    open: Vec<OpenRenewal>,
}

#[derive(Debug)]
struct OpenRenewal {
    ticket: u32,
    runs: Vec<RunRef>,
    sent: Moment,
}

impl Leasing {
    /// Takes a new lease in; a suspect's is renewed at once.
    pub(super) fn expect(&mut self, ends: Moment, lease: Duration, at_once: Option<Moment>) {
        let due = at_once.unwrap_or_else(|| renewal_of(ends, lease));
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }
}

impl Machine {
    pub(super) fn renewal_due(&self) -> Option<Moment> {
        self.leasing.next.map(|next| next.max(self.store.until))
    }

    pub(super) fn next_renewal(&mut self, now: Moment) -> Option<Command> {
        if self.renewal_due()? > now {
            return None;
        }
        let lease = self.config.lease;
        let (mut due, mut next) = (Vec::new(), None::<Moment>);
        for (at, run) in self.held.runs() {
            if run.settling || run.fenced || run.renewing {
                continue;
            }
            let at_renewal = if run.renew_first { now } else { renewal_of(run.lease_ends, lease) };
            if at_renewal <= now {
                due.push(at);
            } else {
                next = Some(next.map_or(at_renewal, |next| next.min(at_renewal)));
            }
        }
        self.leasing.next = next;
        if due.is_empty() {
            return None;
        }
        let tokens: Vec<Token> = due.iter().map(|at| self.held.run(*at).token).collect();
        for at in &due {
            self.held.run_mut(*at).renewing = true;
        }
        let (ticket, deadline) = (self.ticket(), self.store_deadline(now));
        self.leasing.open.push(OpenRenewal { ticket, runs: due, sent: now });
        Some(Command::Renew { ticket, tokens, lease, deadline })
    }

    pub(super) fn on_renewed(
        &mut self,
        now: Moment,
        ticket: u32,
        tokens: Vec<Token>,
        result: Result<Vec<Renewed>, Error>,
    ) {
        let Some(place) = self.leasing.open.iter().position(|open| open.ticket == ticket) else { return };
        let open = self.leasing.open.swap_remove(place);
        for (at, token) in open.runs.iter().zip(&tokens) {
            if let Some(run) = self.held.run_by_token(*at, *token) {
                run.renewing = false;
            }
        }
        match super::answered(result, tokens.len(), "renew") {
            Ok(answers) => {
                self.store_answered();
                for ((at, token), answer) in open.runs.iter().zip(tokens).zip(answers) {
                    self.on_renewal_answered(now, *at, token, answer.outcome, open.sent);
                }
            }
            Err(error) => {
                self.store_failed(now, error);
                self.leasing.next = Some(now);
            }
        }
    }

    fn on_renewal_answered(&mut self, now: Moment, at: RunRef, token: Token, outcome: Outcome, sent: Moment) {
        let lease = self.config.lease;
        let Some(run) = self.held.run_by_token(at, token) else { return };
        if outcome != Outcome::Applied {
            self.lose(at);
            return;
        }
        run.lease_ends = sent.after(lease);
        let (ends, was_suspect) = (run.lease_ends, std::mem::take(&mut run.renew_first));
        self.leasing.expect(ends, lease, None);
        if was_suspect {
            self.release_to_send(now, at);
        }
    }

    /// A suspect was renewed: now it may be sent.
    fn release_to_send(&mut self, now: Moment, run: RunRef) {
        let entries: Vec<_> = self.held.undecided(run).collect();
        for at in entries {
            self.make_ready(now, at);
        }
    }

    /// Another relay took the run. Nothing more of it is sent; what was confirmed is still reported.
    fn lose(&mut self, at: RunRef) {
        let run = self.held.run_mut(at);
        if run.settling {
            return;
        }
        run.fenced = true;
        let (sent, never_ready) = (run.sent, std::mem::take(&mut run.renew_first));
        self.observer.observe(&Observation::Fenced { sent });
        if never_ready {
            self.give_run_back(at);
        }
    }

    /// Decides every message of a run that was never queued.
    fn give_run_back(&mut self, run: RunRef) {
        let entries: Vec<_> = self.held.undecided(run).collect();
        for at in entries {
            self.give_back(at);
        }
    }

    /// Gives suspects back that still wait for their renewal: the relay stops.
    pub(super) fn give_unrenewed_back(&mut self) {
        debug_assert!(!matches!(self.phase, Phase::Running));
        let waiting = self.held.runs().filter(|(_, run)| run.renew_first && !run.settling);
        let waiting: Vec<RunRef> = waiting.map(|(at, _)| at).collect();
        for at in waiting {
            self.held.run_mut(at).renew_first = false;
            self.give_run_back(at);
        }
    }
}

fn renewal_of(ends: Moment, lease: Duration) -> Moment {
    // A third before the end; a lease is never longer than the clock is old plus itself.
    Moment::from_nanos(
        ends.as_nanos().saturating_sub(u64::try_from((lease / 3).as_nanos()).unwrap_or(u64::MAX)),
    )
}
