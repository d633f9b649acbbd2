//! Reporting to the store, until it has answered: a failed settle is never a failed send.

use super::held::{HeldRun, RunRef};
use super::{Command, Machine};
use crate::{Error, ErrorKind, Moment, Observation, Outcome, Settled, Settlement, Settlements, Verdict};
use std::time::Duration;

/// The settles on their way and those to repeat, and buffers for the next ones.
#[derive(Debug, Default)]
pub(super) struct Settling {
    open: Vec<OpenSettle>,
    spare: Vec<Settlements>,
    runs: Vec<Vec<RunRef>>,
}

#[derive(Debug)]
struct OpenSettle {
    ticket: u32,
    runs: Vec<RunRef>,
    sent: Moment,
    /// To be repeated, with identical verdicts.
    repeat: Option<Settlements>,
}

/// As many as claims by default: one waits for the disk of the store while the next are sent.
const SETTLES_IN_FLIGHT: usize = 3;
/// A settle reports at most so many messages: a store bounds its work by it.
const MESSAGES_PER_SETTLE: u32 = 1_000;

impl Machine {
    pub(super) fn settle_due(&self) -> Option<Moment> {
        let repeats = self.settling.open.iter().any(|open| open.repeat.is_some());
        let starts = !self.held.decided.is_empty() && self.settling.open.len() < SETTLES_IN_FLIGHT;
        (repeats || starts).then_some(self.store.until)
    }

    pub(super) fn next_settle(&mut self, now: Moment) -> Option<Command> {
        if self.settle_due()? > now {
            return None;
        }
        let deadline = self.store_deadline(now);
        for open in &mut self.settling.open {
            if let Some(settlements) = open.repeat.take() {
                return Some(Command::Settle { ticket: open.ticket, settlements, deadline });
            }
        }
        let mut settlements = self.settling.spare.pop().unwrap_or_default();
        settlements.clear();
        let mut runs = self.settling.runs.pop().unwrap_or_default();
        let mut messages = 0;
        while let Some(at) = self.held.decided.front().copied() {
            messages += self.held.messages_of(at);
            if messages > MESSAGES_PER_SETTLE && !runs.is_empty() {
                break;
            }
            self.held.decided.pop_front();
            runs.push(at);
            self.report(at, &mut settlements);
        }
        let ticket = self.ticket();
        self.settling.open.push(OpenSettle { ticket, runs, sent: now, repeat: None });
        Some(Command::Settle { ticket, settlements, deadline })
    }

    /// Adds a decided run: verdict by verdict, or handed back whole where nothing of it was touched.
    fn report(&mut self, at: RunRef, settlements: &mut Settlements) {
        let token = self.held.run(at).token;
        let mut longest = Some(Duration::ZERO);
        for verdict in self.held.verdicts(at) {
            longest = match verdict {
                Verdict::Release { after } => longest.map(|longest| longest.max(*after)),
                _ => None,
            };
            if longest.is_none() {
                break;
            }
        }
        // A delay of the whole run would hold messages of destinations that flow.
        match longest {
            Some(after) if after.is_zero() || self.all_paused() => {
                settlements.hand_back(token, after);
                self.held.take_verdicts(at).for_each(drop);
            }
            _ => settlements.verdicts(token, self.held.take_verdicts(at)),
        }
    }

    pub(super) fn on_settled(
        &mut self,
        now: Moment,
        ticket: u32,
        settlements: Settlements,
        result: Result<Vec<Settled>, Error>,
    ) {
        let Some(place) = self.settling.open.iter().position(|open| open.ticket == ticket) else { return };
        let answers = match super::answered(result, settlements.len(), "settle") {
            Ok(answers) => answers,
            Err(error) if error.kind() == ErrorKind::Rejected => {
                self.on_refused(now, place, settlements, error);
                return;
            }
            Err(error) => {
                self.settling.open[place].repeat = Some(settlements);
                self.store_failed(now, error);
                return;
            }
        };
        let OpenSettle { mut runs, sent, .. } = self.settling.open.swap_remove(place);
        self.store_answered();
        let (mut published, mut released) = (0, 0);
        for ((at, (_, settlement)), answer) in runs.drain(..).zip(settlements.iter()).zip(answers) {
            let HeldRun { sent, fenced: known, .. } = *self.held.run(at);
            match answer.outcome {
                Outcome::Fenced if !known => self.observer.observe(&Observation::Fenced { sent }),
                Outcome::Fenced => {}
                Outcome::Applied | Outcome::AlreadyApplied => match settlement {
                    Settlement::Verdicts(verdicts) => {
                        for verdict in verdicts {
                            match verdict {
                                Verdict::Published => published += 1,
                                Verdict::Release { .. } => released += 1,
                                Verdict::Retry { .. } | Verdict::Bury { .. } => {}
                            }
                        }
                    }
                    Settlement::HandBack { .. } => released += self.held.messages_of(at),
                },
            }
            self.held.forget(at);
        }
        self.settling.spare.push(settlements);
        self.settling.runs.push(runs);
        self.observer.observe(&Observation::Settled { published, took: now.since(sent) });
        if released > 0 {
            self.observer.observe(&Observation::Released { messages: released });
        }
        self.settled_some(now);
    }

    /// The store will never take this settle. Its runs are reported one by one, so that the wrong one is alone; that one is
    /// left to its lease, since repeating it would hold everything else up for ever.
    fn on_refused(&mut self, now: Moment, place: usize, settlements: Settlements, error: Error) {
        let open = self.settling.open.swap_remove(place);
        if let [run] = open.runs[..] {
            self.held.forget(run);
            self.settling.spare.push(settlements);
            self.settled_some(now);
        } else {
            for (run, (token, settlement)) in open.runs.iter().zip(settlements.iter()) {
                let mut single = self.settling.spare.pop().unwrap_or_default();
                single.clear();
                match settlement {
                    Settlement::Verdicts(verdicts) => single.verdicts(token, verdicts.iter().cloned()),
                    Settlement::HandBack { after } => single.hand_back(token, after),
                }
                let ticket = self.ticket();
                self.settling.open.push(OpenSettle {
                    ticket,
                    runs: vec![*run],
                    sent: open.sent,
                    repeat: Some(single),
                });
            }
        }
        self.store_failed(now, error);
    }
}
