use super::{Nonce, Token};
use crate::{Message, MessageId, Text, Timestamp};
use bytes::Bytes;
use std::time::Duration;

/// What a relay asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// At most so many messages in all runs together. Zero answers no runs.
    pub limit: u32,
    /// How long the runs are the claimant's.
    pub lease: Duration,
    /// New for every claim; the same when a claim is repeated since its answer was lost.
    pub nonce: Nonce,
    /// Asks for one suspect, alone. Only a relay that holds nothing else asks so. Without suspects nothing is handed out.
    pub solo: bool,
}

/// What a claim answers. Flat: the entries of all runs stand in one list, a run is a range of it.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The runs, each the unit of lease and fence.
    pub runs: Vec<Run>,
    /// The entries of all runs, run after run, in order.
    pub entries: Vec<Entry>,
    /// Where fewer messages than the limit were handed out: when to ask again at the latest, which is no later than the next one known of
    /// will be due. A claim that handed out some need not look for it: who has them asks again once they are settled, and a time soon
    /// after this claim does for the rest.
    pub next_due: Option<Timestamp>,
    /// The store's time of this claim.
    pub now: Timestamp,
    /// How many messages this claim buried, since they had reached `max_strikes`.
    pub buried: u32,
    /// How many suspects wait for a solo claim. A lower bound greater than zero is enough.
    pub suspects: u32,
}

impl Claimed {
    /// The entries of `run`.
    pub fn entries_of(&self, run: &Run) -> &[Entry] {
        &self.entries[run.start as usize..][..run.len as usize]
    }
}

/// One or more messages that share a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the run is held by.
    pub token: Token,
    /// When it was handed out.
    pub claimed_at: Timestamp,
    /// The end of its lease.
    pub lease_until: Timestamp,
    /// Where its entries begin in [`Claimed::entries`].
    pub start: u32,
    /// How many entries it has; at least one.
    pub len: u32,
}

/// One message of a run, as it was handed out.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The message, or what could not be read as one.
    pub content: Content,
    /// Failed sends that were charged so far.
    pub attempts: u32,
    /// Strikes so far.
    pub strikes: u32,
}

/// A message, or what could not be read as one.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every entry is a message; a box would cost each an allocation"
)]
pub enum Content {
    /// A message.
    Message(Message),
    /// A record that is no message. The relay buries it with its reason, and the others go on.
    Undecodable(Undecodable),
}

/// A record that could not be read as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its id, where that much could be read.
    pub id: Option<MessageId>,
    /// What is stored.
    pub bytes: Bytes,
    /// Why it is no message.
    pub reason: Text,
}
