//! What happened in a run, in the order in which it happened, as the store and the broker saw it.
//!
//! A claim, renewal or settle is recorded where it reaches the store, not where the relay waits for it: a reply that was
//! lost was an answer all the same, and a request that lands late is judged when it lands. A delivery is recorded at the
//! broker, whatever the publisher learned of it.

mod recorder;
mod storage;
mod trace;

pub(crate) use recorder::CREATED;
pub use recorder::Recorder;
pub use storage::RecordedStorage;

use crate::fault::{Fault, Operation};
use pillarbox_core::{Claim, HeadPolicy, Message, Renewed, Run, Settled, Timestamp, Token};
use std::fmt::Write as _;
use std::time::Duration;

/// A run: what was planned, and what happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The store's settings, and the relays'.
    pub terms: Terms,
    /// The messages, by number.
    pub messages: Vec<Planned>,
    /// What happened, in order.
    pub records: Vec<Record>,
    /// What the store held when everything was over.
    pub end: Ending,
}

impl History {
    /// A number that is the same for the same history.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        // Writing into a hash cannot fail.
        let _ = write!(hash, "{:?}", self.records);
        let _ = write!(hash, "{:?}", self.end);
        hash.0
    }
}

/// What the rules are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What happens to a key whose head died.
    pub head_policy: HeadPolicy,
    /// How many strikes bury a message.
    pub max_strikes: u32,
    /// How many failed sends bury a message.
    pub max_attempts: u32,
    /// The lease that relays ask for.
    pub lease: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            head_policy: HeadPolicy::Continue,
            max_strikes: 3,
            max_attempts: 5,
            lease: Duration::from_secs(30),
        }
    }
}

/// A message that somebody means to enqueue.
#[derive(Clone, Debug)]
pub struct Planned {
    /// As it is enqueued.
    pub message: Message,
    /// Whether the broker refuses it for good, so that it may be buried at its first send.
    pub refused: bool,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Record {
    /// How long after the beginning.
    pub at: Duration,
    /// Who did it: a relay's number from 1, or 0 for producers, the operator and the world.
    pub by: u16,
    /// What happened.
    pub event: Event,
}

/// What can happen. Messages and transactions go by their numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message became part of an open transaction.
    Enqueued {
        /// Of which transaction.
        transaction: u32,
        /// Which message.
        message: u32,
    },
    /// A transaction's commit was asked for: from now on its messages may be seen.
    CommitBegan {
        /// Which.
        transaction: u32,
    },
    /// The producer learned that its transaction is committed, or learned nothing.
    CommitEnded {
        /// Which.
        transaction: u32,
        /// Whether it learned so.
        acknowledged: bool,
    },
    /// A transaction was rolled back.
    RolledBack {
        /// Which.
        transaction: u32,
    },
    /// The store answered a claim.
    Claimed(Box<ClaimSeen>),
    /// The store answered renewals of runs, with the lengths that were asked for.
    Renewed {
        /// The index of the record that was the last when the call reached the store.
        began: u32,
        /// The lease that was asked for.
        lease: Duration,
        /// The answers by token.
        answers: Vec<(Token, Renewed)>,
    },
    /// The store answered settlements of runs.
    Settled {
        /// The index of the record that was the last when the call reached the store.
        began: u32,
        /// What was reported of each token, and the answer.
        answers: Vec<(Token, SettlementSeen, Settled)>,
    },
    /// A call was dropped inside the store: nobody knows what became of these runs, or of a claim if there are none.
    Abandoned {
        /// The index of the record that was the last when the call reached the store.
        began: u32,
        /// The tokens of the call.
        tokens: Vec<Token>,
    },
    /// The broker took a message.
    Delivered {
        /// Which; `None` for one that nobody planned.
        message: Option<u32>,
        /// Whether it is as it was enqueued.
        intact: bool,
    },
    /// A publish of a message was disturbed: it may arrive more than once, or without anybody learning so.
    Disturbed {
        /// Which.
        message: u32,
    },
    /// A fault was injected into a call.
    Injected {
        /// Which call.
        operation: Operation,
        /// What went wrong.
        fault: Fault,
    },
    /// A request that was given up has landed.
    LateEffect,
    /// A relay stopped for so long, without knowing.
    Paused {
        /// For how many microseconds.
        micros: u64,
    },
    /// A relay was started.
    Started,
    /// A relay was dropped, whatever it was doing.
    Crashed,
    /// A relay was asked to stop, and has.
    Stopped,
    /// A relay ended although nobody asked it to.
    Ended {
        /// Whether it may: it was refused at its very first calls.
        allowed: bool,
    },
    /// A clock went ahead: a relay's, or the store's.
    ClockJumped {
        /// By how many microseconds.
        micros: u64,
    },
    /// A relay lost sight of the store or the broker for a while.
    Partitioned {
        /// The other side: the store, or the broker.
        from_store: bool,
        /// For how many microseconds.
        micros: u64,
    },
    /// The broker became slow for a while.
    Slowed {
        /// For how many microseconds.
        micros: u64,
    },
    /// The operator made a dead message new again. Recorded before the call.
    Redriven {
        /// Which.
        message: u32,
    },
    /// The operator removed a dead message for good. Recorded before the call.
    Discarded {
        /// Which.
        message: u32,
    },
    /// The operator purged what is published.
    Purged {
        /// How many messages that removed.
        count: u64,
    },
    /// Everything works again.
    Healed,
    /// The run was ended since nothing but polls happened: time stood still.
    Spun,
}

/// A claim, as the store answered it.
#[derive(Clone, Debug)]
pub struct ClaimSeen {
    /// The index of the record that was the last when the call reached the store.
    pub began: u32,
    /// What was asked for.
    pub claim: Claim,
    /// The store's time.
    pub now: Timestamp,
    /// The runs.
    pub runs: Vec<Run>,
    /// The entries of all runs.
    pub entries: Vec<EntrySeen>,
    /// How many messages the claim buried.
    pub buried: u32,
}

/// An entry of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySeen {
    /// Which message; `None` for one that nobody planned.
    pub message: Option<u32>,
    /// Failed sends so far, as the store says.
    pub attempts: u32,
    /// Strikes so far, as the store says.
    pub strikes: u32,
}

/// What was reported for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettlementSeen {
    /// A verdict for each entry.
    Verdicts(Vec<VerdictSeen>),
    /// Handed back whole.
    HandBack(Duration),
}

/// A verdict, without its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictSeen {
    /// Sent.
    Published,
    /// Failed, charged, due again so much later.
    Retry(Duration),
    /// Given back, due again so much later.
    Release(Duration),
    /// Given up.
    Bury,
}

/// What the store held at the end.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ending {
    /// How many messages are neither published nor dead.
    pub remaining: u64,
    /// The dead letters, by number.
    pub dead: Vec<u32>,
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl std::fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
