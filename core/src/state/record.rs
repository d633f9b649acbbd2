use crate::{Timestamp, Token};
use std::time::Duration;

/// What the claim state machine knows of one message. Small and `Copy`: the content lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Where the message is in its life.
    pub state: State,
    /// The highest fence under which it was claimed; 0 if it never was.
    pub fence: u64,
    /// Failed sends that were charged.
    pub attempts: u32,
    /// Deaths of relays that held it alone, on a claim that they had renewed.
    pub strikes: u32,
    /// The longest run that it may be part of: [`Record::UNLIMITED`], halved by every claim that ended without an
    /// outcome. At 1 it is a suspect.
    pub run_limit: u32,
    /// Not claimable before this time.
    pub due_at: Timestamp,
    /// The token of its last settlement.
    pub settled: Option<Token>,
}

impl Record {
    /// The [`run_limit`](Self::run_limit) of a message that no relay died with.
    pub const UNLIMITED: u32 = u32::MAX;

    /// A new message, claimable from `due_at` on.
    pub const fn pending(due_at: Timestamp) -> Self {
        Self {
            state: State::Pending,
            fence: 0,
            attempts: 0,
            strikes: 0,
            run_limit: Self::UNLIMITED,
            due_at,
            settled: None,
        }
    }

    /// The lease under which it is claimed, expired or not.
    pub const fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Claimed(lease) => Some(lease),
            _ => None,
        }
    }

    /// Whether it stands alone under suspicion, and so goes only to a claim that asks for `solo`.
    pub const fn is_suspect(&self) -> bool {
        self.run_limit <= 1
    }

    /// Whether it waits for its first due time. Such a message blocks nobody of its key.
    pub fn is_scheduled(&self, now: Timestamp) -> bool {
        self.state == State::Pending && self.fence == 0 && self.due_at > now
    }

    /// This record as the next claim finds it: a lease that ran out is charged as a strike. `None` if it cannot be
    /// claimed now. A record that comes back `Dead` has reached `max_strikes`.
    pub fn as_claimable(&self, now: Timestamp, max_strikes: u32) -> Option<Self> {
        match self.state {
            State::Pending if self.due_at <= now => Some(*self),
            State::Claimed(lease) if lease.until <= now => Some(self.struck(&lease, now, max_strikes)),
            _ => None,
        }
    }

    fn struck(&self, lease: &Lease, now: Timestamp, max_strikes: u32) -> Self {
        let strikes = self.strikes + u32::from(lease.solo && lease.renewed);
        let state = if strikes >= max_strikes { State::Dead } else { State::Pending };
        Self { state, strikes, run_limit: (lease.run / 2).max(1), due_at: now, ..*self }
    }
}

/// Where a message is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits to be claimed.
    Pending,
    /// Held by a relay, until its lease runs out and another claim takes it.
    Claimed(Lease),
    /// Sent and settled. Terminal.
    Published,
    /// Given up with a reason. Terminal, except for a redrive.
    Dead,
}

/// One claim of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The token of the run that it was handed out in.
    pub token: Token,
    /// When it was handed out.
    pub claimed_at: Timestamp,
    /// The end of the lease. Live while the store's time is below it.
    pub until: Timestamp,
    /// How many messages the run has.
    pub run: u32,
    /// Whether it was handed out as a suspect, alone.
    pub solo: bool,
    /// Whether it was renewed.
    pub renewed: bool,
}

impl Lease {
    /// This lease, renewed at `now`. A renewal never shortens.
    #[must_use]
    pub fn extended(&self, now: Timestamp, lease: Duration) -> Self {
        Self { until: self.until.max(now.after(lease)), renewed: true, ..*self }
    }
}
