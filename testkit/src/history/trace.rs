use super::{Event, History, Record, SettlementSeen, VerdictSeen};
use pillarbox_core::{Outcome, Timestamp, Token};
use std::fmt;

/// One line for each thing that happened: milliseconds since the beginning, who, and what.
impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "      t/ms  who      what")?;
        self.records.iter().try_for_each(|record| writeln!(formatter, "{}", Line(self, record)))
    }
}

impl History {
    /// A record of this history as one line.
    pub fn line<'a>(&'a self, record: &'a Record) -> impl fmt::Display + 'a {
        Line(self, record)
    }
}

struct Line<'a>(&'a History, &'a Record);

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(history, record) = self;
        let who = if record.by == 0 { "world".to_owned() } else { format!("relay {}", record.by) };
        write!(out, "{:>10.3}  {who:<7}  ", record.at.as_secs_f64() * 1_000.0)?;
        match &record.event {
            Event::Enqueued { transaction, message } => {
                let planned = &history.messages[*message as usize];
                write!(out, "t{transaction} enqueues m{message}")?;
                if let Some(key) = planned.message.key() {
                    write!(out, " of key {}", &**key)?;
                }
                if planned.message.deliver_at().is_some() {
                    write!(out, ", scheduled")?;
                }
                if planned.refused { write!(out, ", which the broker refuses") } else { Ok(()) }
            }
            Event::CommitBegan { transaction } => write!(out, "t{transaction} commits"),
            Event::CommitEnded { transaction, acknowledged: true } => {
                write!(out, "t{transaction} is committed")
            }
            Event::CommitEnded { transaction, .. } => {
                write!(out, "t{transaction}: nobody learns whether it is committed")
            }
            Event::RolledBack { transaction } => write!(out, "t{transaction} is rolled back"),
            Event::Claimed(seen) => {
                let kind = if seen.claim.solo { "solo claim" } else { "claim" };
                write!(out, "{kind} of {} →", seen.claim.limit)?;
                for run in &seen.runs {
                    write!(out, " {} (until {})", Short(run.token), millis(run.lease_until))?;
                    for entry in &seen.entries[run.start as usize..][..run.len as usize] {
                        match entry.message {
                            Some(message) => write!(out, " m{message}")?,
                            None => write!(out, " ?")?,
                        }
                        if entry.attempts + entry.strikes > 0 {
                            write!(out, "[{} attempts, {} strikes]", entry.attempts, entry.strikes)?;
                        }
                    }
                }
                if seen.runs.is_empty() {
                    write!(out, " nothing")?;
                }
                if seen.buried > 0 {
                    write!(out, ", {} buried", seen.buried)?;
                }
                Ok(())
            }
            Event::Renewed { answers, .. } => {
                write!(out, "renew")?;
                answers.iter().try_for_each(|(token, answer)| {
                    write!(out, " {} → {}", Short(*token), name(answer.outcome))?;
                    answer.lease_until.map_or(Ok(()), |until| write!(out, " until {}", millis(until)))
                })
            }
            Event::Settled { answers, .. } => {
                write!(out, "settle")?;
                answers.iter().try_for_each(|(token, settlement, answer)| {
                    let settlement = Reported(settlement);
                    write!(out, " {}{settlement} → {}", Short(*token), name(answer.outcome))
                })
            }
            Event::Abandoned { tokens, .. } => write!(out, "a call is dropped inside the store: {tokens:?}"),
            Event::Delivered { message: Some(message), intact } => {
                let changed = if *intact { "" } else { ", changed" };
                write!(out, "the broker takes m{message}{changed}")
            }
            Event::Delivered { message: None, .. } => write!(out, "the broker takes an unknown message"),
            Event::Disturbed { message } => write!(out, "(the publish of m{message} was disturbed)"),
            Event::Injected { operation, fault } => write!(out, "fault in {}: {fault:?}", operation.name()),
            Event::LateEffect => write!(out, "a late request has landed"),
            Event::Paused { micros } => write!(out, "stands still for {}", Millis(*micros)),
            Event::Started => write!(out, "starts"),
            Event::Crashed => write!(out, "crashes"),
            Event::Stopped => write!(out, "has stopped"),
            Event::Ended { allowed: true } => write!(out, "ends: refused at its first calls"),
            Event::Ended { .. } => write!(out, "ends by itself"),
            Event::ClockJumped { micros } => write!(out, "clock jumps by {}", Millis(*micros)),
            Event::Partitioned { from_store, micros } => {
                let side = if *from_store { "store" } else { "broker" };
                write!(out, "is cut off from the {side} for {}", Millis(*micros))
            }
            Event::Slowed { micros } => write!(out, "the broker is slow for {}", Millis(*micros)),
            Event::Redriven { message } => write!(out, "redrives m{message}"),
            Event::Discarded { message } => write!(out, "discards m{message}"),
            Event::Purged { count } => write!(out, "purges {count}"),
            Event::Healed => write!(out, "everything works again"),
            Event::Spun => write!(out, "time stands still: given up"),
        }
    }
}

struct Short(Token);

impl fmt::Display for Short {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nonce = self.0.nonce.as_bytes();
        write!(formatter, "{}/{}/{:02x}{:02x}", self.0.unit, self.0.fence, nonce[0], nonce[1])
    }
}

struct Reported<'a>(&'a SettlementSeen);

impl fmt::Display for Reported<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SettlementSeen::HandBack(after) => write!(formatter, " handed back for {after:?}"),
            SettlementSeen::Verdicts(verdicts) => verdicts.iter().try_for_each(|verdict| match verdict {
                VerdictSeen::Published => write!(formatter, " published"),
                VerdictSeen::Retry(after) => write!(formatter, " retry in {after:?}"),
                VerdictSeen::Release(after) => write!(formatter, " release for {after:?}"),
                VerdictSeen::Bury => write!(formatter, " bury"),
            }),
        }
    }
}

struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:03} ms", self.0 / 1_000, self.0 % 1_000)
    }
}

const fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::AlreadyApplied => "already applied",
        Outcome::Fenced => "fenced",
    }
}

fn millis(at: Timestamp) -> Millis {
    let start = super::recorder::CREATED;
    Millis(u64::try_from(at.since(start).as_micros()).unwrap_or(u64::MAX))
}
