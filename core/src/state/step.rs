use super::{Lease, Record, State};
use crate::{Timestamp, Token, Verdict};
use std::fmt;
use std::time::Duration;

/// What someone wants to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Hand it out.
    Claim {
        /// The new token; its fence is above the record's.
        token: Token,
        /// How long the lease lasts.
        lease: Duration,
        /// How many messages the run has that it is handed out in.
        run: u32,
        /// Whether the claim asks for a suspect.
        solo: bool,
    },
    /// Prolong the lease.
    Renew {
        /// The token that it was claimed with.
        token: Token,
        /// The new length, from now.
        lease: Duration,
    },
    /// Report what became of it.
    Settle {
        /// The token that it was claimed with.
        token: Token,
        /// What became of it.
        verdict: &'a Verdict,
    },
    /// Give it back untouched, with its whole run.
    HandBack {
        /// The token that it was claimed with.
        token: Token,
        /// Not claimable for so long.
        after: Duration,
    },
    /// Make a dead message new again.
    Redrive,
    /// Remove a dead message for good.
    Discard,
}

/// What happened, with the record as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a transition counts only once it is stored"]
pub enum Transition {
    /// Handed out, under the lease in the record.
    Claimed(Record),
    /// Its last claim ended without an outcome. That was charged, and it is now a suspect: this claim does not get it.
    Struck(Record),
    /// Dead now: by verdict, or since it reached the limit of strikes at this claim.
    Buried(Record),
    /// The lease was prolonged.
    Renewed(Record),
    /// Sent. A store without retention removes it.
    Published(Record),
    /// Charged with an attempt, due again at the record's time.
    Retried(Record),
    /// Given back, not charged, due again at the record's time.
    Released(Record),
    /// New again.
    Redriven(Record),
    /// Removed for good.
    Discarded,
}

impl Transition {
    /// The record as it is now; `None` after a discard.
    pub const fn record(&self) -> Option<&Record> {
        match self {
            Self::Claimed(record)
            | Self::Struck(record)
            | Self::Buried(record)
            | Self::Renewed(record)
            | Self::Published(record)
            | Self::Retried(record)
            | Self::Released(record)
            | Self::Redriven(record) => Some(record),
            Self::Discarded => None,
        }
    }
}

/// Why nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejected {
    /// Not due before this time.
    NotDue(Timestamp),
    /// Another claim is live until this time.
    Held(Timestamp),
    /// Published or dead: never claimed again.
    Terminal,
    /// A suspect goes only to a claim that asks for `solo`.
    Suspect,
    /// A solo claim is only for suspects.
    NotSuspect,
    /// It may be part of a run of at most so many messages.
    RunTooLong(u32),
    /// The token's fence is not above the last one.
    FenceNotRaised(u64),
    /// This token was settled before; nothing changed now.
    AlreadyApplied,
    /// The token is not current: another claim has taken the message since.
    Fenced,
    /// Only a dead message can be redriven or discarded.
    NotDead,
}

impl fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue(at) => write!(formatter, "not due before {at:?}"),
            Self::Held(until) => write!(formatter, "held by a live claim until {until:?}"),
            Self::Terminal => write!(formatter, "published or dead; it is not claimed again"),
            Self::Suspect => write!(formatter, "a suspect goes only to a solo claim"),
            Self::NotSuspect => write!(formatter, "a solo claim is only for suspects"),
            Self::RunTooLong(limit) => write!(formatter, "may be part of a run of at most {limit}"),
            Self::FenceNotRaised(fence) => write!(formatter, "the fence must rise above {fence}"),
            Self::AlreadyApplied => write!(formatter, "this token was settled before"),
            Self::Fenced => write!(formatter, "another claim has taken it since"),
            Self::NotDead => write!(formatter, "not dead"),
        }
    }
}

impl std::error::Error for Rejected {}

/// Decides what `command` does to `record` at the store's time `now`. Pure: the specification of every storage.
///
/// `max_strikes` is the outbox's setting: how many strikes bury a message.
///
/// # Errors
/// [`Rejected`] says why nothing changed; none of its reasons is a failure of the store.
pub fn step(
    record: &Record,
    command: &Command<'_>,
    now: Timestamp,
    max_strikes: u32,
) -> Result<Transition, Rejected> {
    match *command {
        Command::Claim { token, lease, run, solo } => {
            claim(record, token, lease, run, solo, now, max_strikes)
        }
        Command::Renew { token, lease } => {
            let renewed = current(record, token)?.extended(now, lease);
            Ok(Transition::Renewed(Record { state: State::Claimed(renewed), ..*record }))
        }
        Command::Settle { token, verdict } => {
            current(record, token)?;
            Ok(settle(record, token, verdict, now))
        }
        Command::HandBack { token, after } => {
            current(record, token)?;
            Ok(Transition::Released(release(record, token, now.after(after))))
        }
        Command::Redrive if record.state == State::Dead => {
            Ok(Transition::Redriven(Record { fence: record.fence, ..Record::pending(now) }))
        }
        Command::Discard if record.state == State::Dead => Ok(Transition::Discarded),
        Command::Redrive | Command::Discard => Err(Rejected::NotDead),
    }
}

fn claim(
    record: &Record,
    token: Token,
    lease: Duration,
    run: u32,
    solo: bool,
    now: Timestamp,
    max_strikes: u32,
) -> Result<Transition, Rejected> {
    let Some(free) = record.as_claimable(now, max_strikes) else {
        return Err(match record.state {
            State::Claimed(held) => Rejected::Held(held.until),
            State::Pending => Rejected::NotDue(record.due_at),
            State::Published | State::Dead => Rejected::Terminal,
        });
    };
    if free.state == State::Dead {
        return Ok(Transition::Buried(free));
    }
    if free.is_suspect() != solo {
        let was_claimed = record.lease().is_some();
        return match (solo, was_claimed) {
            (false, true) => Ok(Transition::Struck(free)),
            (false, false) => Err(Rejected::Suspect),
            (true, _) => Err(Rejected::NotSuspect),
        };
    }
    if run > free.run_limit {
        return Err(Rejected::RunTooLong(free.run_limit));
    }
    if token.fence <= record.fence {
        return Err(Rejected::FenceNotRaised(record.fence));
    }
    let lease = Lease { token, claimed_at: now, until: now.after(lease), run, solo, renewed: false };
    Ok(Transition::Claimed(Record { state: State::Claimed(lease), fence: token.fence, ..free }))
}

/// The lease, if `token` holds it. Expiry alone changes nothing, so the time does not matter.
fn current(record: &Record, token: Token) -> Result<&Lease, Rejected> {
    match record.lease() {
        Some(lease) if lease.token == token => Ok(lease),
        _ if record.settled == Some(token) => Err(Rejected::AlreadyApplied),
        _ => Err(Rejected::Fenced),
    }
}

fn settle(record: &Record, token: Token, verdict: &Verdict, now: Timestamp) -> Transition {
    let cleared = Record { strikes: 0, run_limit: Record::UNLIMITED, settled: Some(token), ..*record };
    match verdict {
        Verdict::Published => Transition::Published(Record { state: State::Published, ..cleared }),
        Verdict::Retry { after, .. } => Transition::Retried(Record {
            state: State::Pending,
            attempts: record.attempts.saturating_add(1),
            due_at: now.after(*after),
            ..cleared
        }),
        Verdict::Release { after } => Transition::Released(release(record, token, now.after(*after))),
        Verdict::Bury { .. } => Transition::Buried(Record { state: State::Dead, ..cleared }),
    }
}

/// Back as it was. What is under suspicion stays so, since a message that was not sent proves nothing.
fn release(record: &Record, token: Token, due_at: Timestamp) -> Record {
    Record { state: State::Pending, due_at, settled: Some(token), ..*record }
}
