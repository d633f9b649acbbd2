//! Looking into an outbox and mending it. Every call is bounded.

use crate::{Error, Message, MessageId, Text, Timestamp, Undecodable};
use futures_util::future::BoxFuture;
use std::time::Duration;

/// A store that can be looked into and mended.
///
/// # Contract
///
/// - Every call does a bounded amount of work, at most `limit` changes, and never blocks relays for long.
/// - `redrive` and `discard` touch dead messages only; `purge_published` only published ones.
/// - A `dry_run` changes nothing and answers what would have been changed.
pub trait Admin: Send + Sync {
    /// Counts what is stored.
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>>;

    /// A page of messages in `listing`'s state. Weakly consistent: what moves meanwhile may be missed or seen twice.
    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>>;

    /// One dead or scheduled message, or one that waits for its retry.
    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>>;

    /// Makes dead messages pending again with both counters reset: as new ones under
    /// [`HeadPolicy::Continue`](crate::HeadPolicy), at the head of their key under `Block`.
    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>>;

    /// Removes dead messages for good.
    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>>;

    /// Removes published messages that were settled longer ago than `older_than`, at most `limit`; answers how many. A store
    /// that keeps none answers 0.
    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>>;
}

/// How much is stored, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Due, and waiting to be claimed.
    pub pending: u64,
    /// Waiting for a time: scheduled, retried, or parked behind a message of its key.
    pub scheduled: u64,
    /// Held by a live or expired claim. A store that leases lanes counts what the claims hold.
    pub claimed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Published and kept, where retention is on.
    pub published: u64,
    /// How long the oldest message that is due has waited, where the store can tell.
    pub oldest_due_age: Option<Duration>,
}

/// Which messages to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In this state.
    pub state: ListState,
    /// Matching this. Pending messages cannot be filtered: a store answers `Misconfigured` to a filter on them.
    pub filter: Filter,
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<Cursor>,
    /// At most so many on this page, 1 to 1,000.
    pub limit: u32,
}

/// The states that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListState {
    /// Due and not claimed, as far as the store can tell cheaply.
    Pending,
    /// Waiting for a time.
    Scheduled,
    /// Dead letters.
    Dead,
}

/// Where a page ended. Opaque: its content is the store's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(pub Text);

/// Which dead or scheduled messages; everything that is given must match.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    /// These ids only; empty is any.
    pub ids: Vec<MessageId>,
    /// This topic only.
    pub topic: Option<Text>,
    /// This ordering key only.
    pub key: Option<Text>,
    /// Whose reason contains this.
    pub reason_contains: Option<Text>,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// One message.
    pub fn id(id: MessageId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// Whether nothing is asked for.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a stored message matches.
    pub fn matches(&self, stored: &Stored) -> bool {
        let (id, topic, key) = match &stored.content {
            crate::Content::Message(message) => (Some(message.id()), Some(message.topic()), message.key()),
            crate::Content::Undecodable(Undecodable { id, .. }) => (*id, None, None),
        };
        (self.ids.is_empty() || id.is_some_and(|id| self.ids.contains(&id)))
            && self.topic.as_ref().is_none_or(|wanted| topic == Some(wanted))
            && self.key.as_ref().is_none_or(|wanted| key == Some(wanted))
            && self
                .reason_contains
                .as_ref()
                .is_none_or(|part| stored.reason.as_ref().is_some_and(|reason| reason.contains(&**part)))
    }
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What was found. May be empty although more follows.
    pub messages: Vec<Stored>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A message as the store has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The message, or what could not be read as one.
    pub content: crate::Content,
    /// Failed sends that were charged.
    pub attempts: u32,
    /// Strikes.
    pub strikes: u32,
    /// When it is due, for scheduled messages.
    pub due_at: Option<Timestamp>,
    /// When it died, for dead letters.
    pub died_at: Option<Timestamp>,
    /// Why it is dead, or why it was last retried.
    pub reason: Option<Text>,
}

impl Stored {
    /// The message's id, where it could be read.
    pub fn id(&self) -> Option<MessageId> {
        match &self.content {
            crate::Content::Message(message) => Some(message.id()),
            crate::Content::Undecodable(undecodable) => undecodable.id,
        }
    }

    /// The message.
    pub fn message(&self) -> Option<&Message> {
        match &self.content {
            crate::Content::Message(message) => Some(message),
            crate::Content::Undecodable(_) => None,
        }
    }
}

/// What a redrive or discard touched, or would have touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Affected {
    /// How many messages were changed; in a dry run, how many would be.
    pub count: u64,
    /// Whether the limit ended the call, so that more may match.
    pub more: bool,
}
