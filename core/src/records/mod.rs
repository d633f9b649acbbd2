//! The short way to a storage: [`RecordStorage`] loads and swaps records, [`Records`] makes a [`Storage`](crate::Storage) of it.

mod adapter;
mod claiming;
mod select;
#[cfg(test)]
mod tests;

pub use adapter::Records;

use crate::{Admin, Content, Error, Message, Nonce, Record, StorageGuarantees, Text, Timestamp, Wakeup};
use std::future::Future;

/// A store of records with compare-and-swap. [`Records`] makes a correct [`Storage`](crate::Storage) of it from
/// [`step`](crate::step): nonces, halving, suspects, parked keys and policies included. Slower than a storage that is
/// written for its database, but right.
///
/// # Contract
///
/// - `now` in every answer is the store's own clock.
/// - `compare_and_swap` is atomic: all changes or none, and none if one record is not as expected.
/// - Positions are given by the store in the order of enqueueing, never by ids or producers' clocks, and never twice, also
///   not after everything was removed: tokens are made of them. A dead message that is redriven under
///   [`HeadPolicy::Continue`](crate::HeadPolicy) gets a new one, since it counts as new.
pub trait RecordStorage: Send + Sync {
    /// What the store promises. [`max_run`](StorageGuarantees::max_run) bounds the runs that are made.
    fn guarantees(&self) -> StorageGuarantees;

    /// The first `limit` messages that may be claimed now, in order: as [`Due::select`] chooses them. A store that can
    /// iterate calls that; a database asks its index the same question.
    ///
    /// # Errors
    /// Any kind.
    fn load_due(&self, limit: u32) -> impl Future<Output = Result<Due, Error>> + Send;

    /// Every record whose lease, or whose last settlement, carries this nonce, in order of positions.
    ///
    /// # Errors
    /// Any kind.
    fn load_claimed(&self, nonce: Nonce) -> impl Future<Output = Result<Loaded, Error>> + Send;

    /// Replaces records, all or none. `false` says that one of them was not as expected, and that nothing was changed. A
    /// published message may be removed.
    ///
    /// # Errors
    /// Any kind; the changes may or may not have been made then.
    fn compare_and_swap(&self, changes: &[Change]) -> impl Future<Output = Result<bool, Error>> + Send;

    /// As [`Storage::wakeup`](crate::Storage::wakeup).
    fn wakeup(&self) -> Option<&dyn Wakeup>;

    /// As [`Storage::admin`](crate::Storage::admin).
    fn admin(&self) -> Option<&dyn Admin>;
}

/// A message with its record.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Its place in the order of enqueueing.
    pub position: u64,
    /// The state of its claim.
    pub record: Record,
    /// The message, or what could not be read as one.
    pub content: Content,
}

impl StoredRecord {
    /// A new message at `position`, enqueued at the store's time `now`.
    pub fn new(position: u64, message: Message, now: Timestamp) -> Self {
        let record = Record::pending(message.deliver_at().unwrap_or(now));
        Self { position, record, content: Content::Message(message) }
    }

    /// Whether its lease, or its last settlement, carries this nonce: what [`RecordStorage::load_claimed`] asks for.
    pub fn carries(&self, nonce: Nonce) -> bool {
        let held = self.record.lease().map(|lease| lease.token);
        held.into_iter().chain(self.record.settled).any(|token| token.nonce == nonce)
    }

    /// The ordering key.
    pub fn key(&self) -> Option<&Text> {
        match &self.content {
            Content::Message(message) => message.key(),
            Content::Undecodable(_) => None,
        }
    }
}

/// Messages that may be claimed.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// The store's time.
    pub now: Timestamp,
    /// In order of positions.
    pub records: Vec<StoredRecord>,
    /// When the next message falls due, or the next lease ends.
    pub next_due: Option<Timestamp>,
}

/// Records that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The store's time.
    pub now: Timestamp,
    /// In order of positions.
    pub records: Vec<StoredRecord>,
}

/// One record to replace.
///
/// Comparing whole records is enough: the fence rises with every claim, so no state comes twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub position: u64,
    /// What it has to be now.
    pub expected: Record,
    /// What it becomes.
    pub record: Record,
    /// Why it died or is tried again, to be kept with it.
    pub reason: Option<Text>,
}
