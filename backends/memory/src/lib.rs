//! The in-memory storage of the Pillarbox outbox: the reference backend.
//!
//! Every transition is [`step`](pillarbox_core::step) behind a lock, so it is also the shortest answer to what the rules of
//! the [architecture](pillarbox_core::docs::architecture) mean. For in-process buses, where producers and relays share one
//! process and its death may take the messages along, and for tests of applications.
//!
//! ```
//! use pillarbox_core::{Enqueue, Message, MessageId, Timestamp};
//! use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage};
//! use std::sync::{Arc, Mutex};
//!
//! # futures_executor::block_on(async {
//! let outbox = MemoryStorage::open(MemoryConfig::new(MemoryClock::manual()))?;
//! let orders = Arc::new(Mutex::new(Vec::new()));
//!
//! let mut transaction = outbox.begin();
//! let table = orders.clone();
//! transaction.stage(move || table.lock().unwrap().push("order-1"));
//! let message = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "orders.created").payload("{}")?;
//! outbox.enqueue(&mut transaction, &[message]).await?;
//! transaction.commit(); // both, or neither if the transaction is dropped
//!
//! assert_eq!(*orders.lock().unwrap(), ["order-1"]);
//! # Ok::<(), pillarbox_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! **Architecture invariant:** no runtime, no thread, no await under the lock.

mod admin;
mod clock;
mod config;
mod enqueue;
mod outbox;
mod storage;
mod wakeup;

pub use clock::MemoryClock;
pub use config::MemoryConfig;
pub use enqueue::MemoryTransaction;
pub use storage::MemoryStorage;
