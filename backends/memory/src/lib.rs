//! The in-memory storage of the Pillarbox outbox: the reference backend.
//!
//! For tests, for programs whose messages need not survive them, and as the shortest complete example of every rule: each
//! change of a message is decided by [`step`](pillarbox_core::step), behind one lock.
//!
//! ```
//! # use pillarbox_core::{Message, MessageId, Timestamp};
//! # use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage};
//! # use std::sync::{Arc, Mutex};
//! let outbox = MemoryStorage::open(MemoryConfig::with_clock(MemoryClock::manual(Timestamp::EPOCH)))?;
//! let orders = Arc::new(Mutex::new(vec!["order-0"]));
//! let created = Message::given(MessageId::from_bytes([7; 16]), Timestamp::EPOCH, "orders.created").payload("{}")?;
//!
//! let mut transaction = outbox.transaction();
//! let written = Arc::clone(&orders);
//! transaction.stage(move || written.lock().unwrap().push("order-1"));
//! transaction.append(&[created])?;
//! transaction.commit(); // both, or, if it is dropped, neither
//! assert_eq!(orders.lock().unwrap().len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Architecture invariant:** no runtime, no thread and, without the feature `clock`, no system clock: it runs on
//! `wasm32-unknown-unknown`. Nothing is awaited while the lock is held.

mod admin;
mod clock;
mod config;
#[cfg(feature = "clock")]
mod driver;
mod enqueue;
mod outbox;
mod storage;
mod wakeup;

pub use clock::MemoryClock;
pub use config::MemoryConfig;
#[cfg(feature = "clock")]
pub use driver::DRIVER;
pub use enqueue::MemoryTransaction;
pub use storage::MemoryStorage;
