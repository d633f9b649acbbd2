//! What is sent where, and what each outcome means.

use super::held::{EntryRef, Stage};
use super::{Command, Machine, requested_pause};
use crate::{Destination, Effect, Error, ErrorKind, Message, Moment, Observation, Outcomes, Text, Verdict};
use std::time::Duration;

/// The publishes on their way, and buffers for the next ones.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    open: Vec<OpenPublish>,
    batches: Vec<(Vec<Message>, Outcomes)>,
    entries: Vec<Vec<EntryRef>>,
    /// The destination that published last, so that all have their turn.
    last: Option<Destination>,
}

#[derive(Debug)]
struct OpenPublish {
    ticket: u32,
    destination: Destination,
    entries: Vec<EntryRef>,
    sent: Moment,
    times_out: Moment,
    /// The first end of a lease among its messages, as far as known.
    lease_ends: Moment,
    cut_off: bool,
}

impl Machine {
    /// Publishes go out as soon as a destination takes them: nothing waits for a time, so that none is ever due.
    pub(super) fn next_publish(&mut self, now: Moment) -> Option<Command> {
        let limit = self.config.publishes_in_flight;
        loop {
            let after_last =
                self.destinations.partition_point(|state| Some(state.id) <= self.publishing.last);
            let (early, late) = self.destinations.split_at(after_last);
            let id = late.iter().chain(early).find(|state| state.may_publish(limit))?.id;
            self.publishing.last = Some(id);
            if let Some(command) = self.publish_to(now, id) {
                return Some(command);
            }
        }
    }

    /// A batch of what waits for a destination; `None` if nothing of it may be sent any more.
    fn publish_to(&mut self, now: Moment, id: Destination) -> Option<Command> {
        let (mut batch, mut outcomes) = self.publishing.batches.pop().unwrap_or_default();
        let mut entries = self.publishing.entries.pop().unwrap_or_default();
        let limit = if self.destination(id).one_at_a_time > 0 { 1 } else { self.config.batch_size as usize };
        let prefix_per_key = self.destination(id).guarantees.prefix_per_key;
        let mut lease_ends = Moment::from_nanos(u64::MAX);
        while batch.len() < limit
            && let Some(first) = self.destination(id).ready.pop_front()
        {
            let mut next = Some(first);
            while let Some(at) = next.take() {
                let Some(ends) = self.check_sendable(now, at, id) else { break };
                lease_ends = lease_ends.min(ends);
                batch.extend(self.held.take_to_send(at));
                entries.push(at);
                if prefix_per_key && batch.len() < limit {
                    next = self.held.next_of_key(at).filter(|at| self.may_follow(*at, id));
                }
            }
        }
        if batch.is_empty() {
            self.publishing.batches.push((batch, outcomes));
            self.publishing.entries.push(entries);
            return None;
        }
        outcomes.reset(batch.len());
        let ticket = self.ticket();
        self.destination(id).publishes_in_flight += 1;
        let times_out = now.after(self.config.publish_at_most());
        self.publishing.open.push(OpenPublish {
            ticket,
            destination: id,
            entries,
            sent: now,
            times_out,
            lease_ends,
            cut_off: false,
        });
        Some(Command::Publish { ticket, destination: id, batch, outcomes })
    }

    /// Whether a message may share a publish with the one of its key before it. One that is too large waits for its turn: a
    /// burial stands behind what was delivered, never behind a retry.
    fn may_follow(&mut self, at: EntryRef, id: Destination) -> bool {
        let limit = self.destination(id).guarantees.max_payload as usize;
        let entry = self.held.entry(at);
        let fits = entry.message.as_ref().is_some_and(|message| message.payload().len() <= limit);
        entry.destination == id && fits
    }

    /// Answers the end of the lease of a message that may be sent, since its lease covers it and the destination takes its size;
    /// decides it otherwise.
    fn check_sendable(&mut self, now: Moment, at: EntryRef, id: Destination) -> Option<Moment> {
        let run = self.held.run(self.held.run_of(at));
        let (covered, lease_ends) = (!run.fenced && run.lease_ends > now, run.lease_ends);
        let limit = self.destination(id).guarantees.max_payload;
        if !covered {
            self.give_back(at);
            return None;
        }
        let size = self.held.entry(at).message.as_ref()?.payload().len();
        if size > limit as usize {
            let error = Error::new(ErrorKind::Rejected, "publish")
                .describe(format!("the payload has {size} bytes; the destination takes {limit}"));
            self.bury(at, &error);
            return None;
        }
        Some(lease_ends)
    }

    pub(super) fn cut_off_due(&self) -> Option<Moment> {
        let open = self.publishing.open.iter().filter(|open| !open.cut_off);
        open.map(|open| open.times_out.min(open.lease_ends)).min()
    }

    pub(super) fn next_cut_off(&mut self, now: Moment) -> Option<Command> {
        let Self { publishing, held, .. } = self;
        for open in publishing.open.iter_mut().filter(|open| !open.cut_off) {
            if open.lease_ends <= now {
                let ends = open.entries.iter().map(|at| held.run(held.run_of(*at)).lease_ends);
                open.lease_ends = ends.min().unwrap_or(now);
            }
            if open.times_out.min(open.lease_ends) <= now {
                open.cut_off = true;
                self.observer.observe(&Observation::CutOff { destination: open.destination });
                return Some(Command::CutOff { ticket: open.ticket });
            }
        }
        None
    }

    /// Lets nothing run on: the relay stops.
    pub(super) fn cut_all_off(&mut self, now: Moment) {
        for open in &mut self.publishing.open {
            open.times_out = open.times_out.min(now);
        }
    }

    pub(super) fn on_published(
        &mut self,
        now: Moment,
        ticket: u32,
        mut batch: Vec<Message>,
        mut outcomes: Outcomes,
    ) {
        let Some(place) = self.publishing.open.iter().position(|open| open.ticket == ticket) else { return };
        let mut open = self.publishing.open.swap_remove(place);
        let mut entries = std::mem::take(&mut open.entries);
        batch.clear();
        let confirmed = (0..entries.len()).filter(|index| matches!(outcomes.outcome(*index), Some(Ok(()))));
        let confirmed = u32::try_from(confirmed.count()).unwrap_or(u32::MAX);
        let total = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        self.observer.observe(&Observation::Published {
            destination: open.destination,
            confirmed,
            failed: total - confirmed,
            took: now.since(open.sent),
        });
        let state = self.destination(open.destination);
        state.publishes_in_flight -= 1;
        if confirmed > 0 {
            state.confirmed(confirmed);
        }
        let alone = total == 1 && state.publishes_in_flight == 0;
        let mut outage = Outage::default();
        for (index, at) in entries.drain(..).enumerate() {
            match outcomes.take(index) {
                // The head of its key failed: it was released, whatever became of it.
                _ if self.held.entry(at).verdict.is_some() => {}
                Some(Ok(())) => self.confirm(now, at),
                Some(Err(error)) => self.judge(now, at, error, &open, alone, &mut outage),
                None => {
                    let error = Error::new(ErrorKind::Indeterminate, "publish")
                        .describe("cut off before it was confirmed");
                    self.judge(now, at, error, &open, alone, &mut outage);
                }
            }
        }
        self.publishing.batches.push((batch, outcomes));
        self.publishing.entries.push(entries);
        if let Some(error) = outage.error.take() {
            self.go_through(now, &open, outage, error);
        }
    }

    fn confirm(&mut self, now: Moment, at: EntryRef) {
        let run = self.held.run_of(at);
        self.held.run_mut(run).sent += 1;
        self.held.decide(at, Verdict::Published);
        if let Some(next) = self.held.next_of_key(at)
            && self.held.entry(next).stage == Stage::Behind
            && self.held.entry(next).verdict.is_none()
        {
            self.held.entry_mut(next).stage = Stage::Ready;
            self.make_ready(now, next);
        }
    }

    /// What a failed send means for its message; what it means for the destination is gathered in `outage`.
    fn judge(
        &mut self,
        now: Moment,
        at: EntryRef,
        error: Error,
        open: &OpenPublish,
        alone: bool,
        outage: &mut Outage,
    ) {
        match error.kind() {
            // The end of a lease or of the relay says nothing about the message.
            ErrorKind::Indeterminate
                if open.cut_off && now < open.sent.after(self.config.publish_at_most()) =>
            {
                self.give_back(at);
            }
            // That others were confirmed meanwhile acquits nobody: a broker that hangs has confirmed the ones before.
            ErrorKind::Indeterminate | ErrorKind::Unexpected => {
                self.doubt(now, at, open.destination, error);
            }
            ErrorKind::Unavailable if error.effect() == Effect::Unknown && alone => {
                self.destination(open.destination).one_at_a_time += 1;
                self.doubt(now, at, open.destination, error);
            }
            ErrorKind::Unavailable | ErrorKind::Misconfigured => {
                outage.lost += u32::from(error.effect() == Effect::Unknown);
                outage.entries.push(at);
                outage.error.get_or_insert(error);
            }
            ErrorKind::Unroutable => self.charge(at, &error),
            ErrorKind::Rejected => self.bury(at, &error),
        }
    }

    /// The destination is away: nothing is charged, and what was in flight is sent one at a time afterwards.
    fn go_through(&mut self, now: Moment, open: &OpenPublish, outage: Outage, error: Error) {
        self.destination(open.destination).one_at_a_time += outage.lost;
        self.pause(now, open.destination, open.sent, &error);
        for at in outage.entries {
            self.set_aside(now, at, open.destination);
        }
        if error.kind() == ErrorKind::Misconfigured && !self.destinations.iter().any(|state| state.succeeded)
        {
            self.fail(now, error);
        }
    }

    /// Charges an attempt: the message is tried again, or buried with its last one.
    pub(super) fn charge(&mut self, at: EntryRef, error: &Error) {
        let entry = self.held.entry(at);
        let (id, attempts) = (entry.id, entry.attempts.saturating_add(1));
        if attempts >= self.config.max_attempts {
            self.bury(at, error);
            return;
        }
        let after = self.config.retry.delay(attempts, (self.random)());
        let after = after.max(requested_pause(error));
        let reason = error.report();
        self.observer.observe(&Observation::Retried { id, attempts, after, reason: &reason });
        self.held.decide(at, Verdict::Retry { after, error: Text::from(reason) });
        self.release_rest_of_key(at);
    }

    fn bury(&mut self, at: EntryRef, error: &Error) {
        let reason = error.report();
        let id = self.held.entry(at).id;
        self.observer.observe(&Observation::Buried { id, reason: &reason });
        self.held.decide(at, Verdict::Bury { reason: Text::from(reason) });
        self.release_rest_of_key(at);
    }

    /// Gives a message back at once, uncharged, with the rest of its key.
    pub(super) fn give_back(&mut self, at: EntryRef) {
        self.held.decide(at, Verdict::Release { after: Duration::ZERO });
        self.release_rest_of_key(at);
    }

    /// Whatever is held of a key behind `at` goes back untouched, so that its order survives the failure.
    pub(super) fn release_rest_of_key(&mut self, at: EntryRef) {
        let mut next = self.held.next_of_key(at);
        while let Some(at) = next {
            self.held.decide(at, Verdict::Release { after: Duration::ZERO });
            next = self.held.next_of_key(at);
        }
    }
}

/// What one publish tells of an outage.
#[derive(Debug, Default)]
struct Outage {
    error: Option<Error>,
    entries: Vec<EntryRef>,
    /// How many of them may have reached the broker.
    lost: u32,
}
