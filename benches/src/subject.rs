use crate::BoxError;
use pillarbox_core::{Message, Storage};

/// A store that is measured: the outbox in it, and beside it, in the same server, the floor.
///
/// The floor moves the same bytes with the same client at the same durability, and keeps no lease, no order and no count.
#[allow(async_fn_in_trait, reason = "used within this crate, on one task")]
pub trait Subject {
    /// The outbox.
    type Storage: Storage + Clone + 'static;

    /// The store.
    fn name(&self) -> &'static str;
    /// The outbox.
    fn storage(&self) -> &Self::Storage;
    /// The server's process; none where the store is within this one.
    fn server(&self) -> Option<u32>;
    /// Empties everything but the settings, so that nothing of the measurement before is left.
    async fn clear(&mut self) -> Result<(), BoxError>;
    /// Bytes that the store takes now.
    async fn stored_bytes(&self) -> Result<u64, BoxError>;

    /// Enqueues a batch in one transaction.
    async fn enqueue(&self, batch: &[Message]) -> Result<(), BoxError>;
    /// Enqueues one message in one transaction with one write of business data.
    async fn enqueue_with_business(&self, message: &Message) -> Result<(), BoxError>;

    /// What [`insert_floor`](Self::insert_floor) does.
    const INSERT_FLOOR: &'static str;
    /// Stores the bytes of a batch in one transaction, without an outbox.
    async fn insert_floor(&self, batch: &[Message]) -> Result<(), BoxError>;
    /// Stores the bytes of one message in one transaction with one write of business data, without an outbox.
    async fn insert_floor_with_business(&self, message: &Message) -> Result<(), BoxError>;
    /// What [`drain_floor`](Self::drain_floor) does.
    const DRAIN_FLOOR: &'static str;
    /// Takes everything that the floor stored, in batches, with one consumer. Answers how many there were.
    async fn drain_floor(&self, batch: u32) -> Result<u32, BoxError>;
}
