//! The Redis storage of the Pillarbox outbox: hashed lanes, claimed by lease and settled by one trim.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pillarbox_core::{Message, MessageId, Timestamp};
//! use pillarbox_redis::RedisStorage;
//!
//! let outbox = RedisStorage::open("redis://localhost/?outbox.name=orders").await?;
//! # let mut connection = redis::Client::open("redis://localhost/")?.get_multiplexed_async_connection().await?;
//! # let message = Message::given(MessageId::from_bytes([7; 16]), Timestamp::EPOCH, "orders.created").payload("{}")?;
//! // The application's own transaction: business data and messages, both or neither.
//! let mut transaction = redis::pipe();
//! transaction.atomic().hset("{orders}order:1", "state", "created");
//! outbox.append(&mut transaction, &[message])?;
//! let _: (u64,) = transaction.query_async(&mut connection).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A message is one list element in one of the outbox's lanes, chosen by the hash of its ordering key. Enqueueing is a plain
//! `RPUSH`, so it is safe inside any `MULTI`. A claim is one script: it leases lanes that are free, with a run at the head of
//! each; nothing is moved. Short runs are in its answer, long ones are read by `LRANGE` once they are leased, since a server reads
//! lists faster than its scripts do. Settling a published run is one `LTRIM`. Only what goes wrong costs more: a message
//! that is retried waits in a sorted set, and a key whose head waits is *parked* in a list of its own, where its later messages
//! gather in order while the other keys of its lane go on. [`layout`] documents records and keys, so that a program in
//! another language can enqueue.
//!
//! # What it promises
//!
//! [`Order::CommitOrdered`](pillarbox_core::Order): lanes have the order in which `EXEC` ran. A message with a time to be
//! delivered at joins its key, or the messages without a key, at the first claim after it is due.
//! [`RepeatedIds::SecondCopy`](pillarbox_core::RepeatedIds): an id that is enqueued twice is delivered twice.
//!
//! What Redis has acknowledged survives what its persistence survives: a killed server loses up to a second or two of writes
//! unless `appendfsync` is `always`, and a failover loses what was not replicated yet. [`Durability`] waits for replicas or for
//! the disk where that matters.
//!
//! # A lane is held as a whole
//!
//! While one relay holds a run of a lane, the messages behind it wait, also those of other keys; a suspect, and a run that was
//! handed back with a delay, hold up their lane too. More lanes mean less waiting for others: see
//! [`RedisConfig::lanes`].
//!
//! **Architecture invariant:** no script ever runs inside the caller's transaction, and no command here takes time that grows
//! with the number of stored messages.

mod admin;
mod checks;
mod config;
mod connection;
mod driver;
mod enqueue;
mod error;
pub mod layout;
mod reply;
mod scripts;
mod settings;
mod storage;
mod url;
mod wakeup;

pub use config::{Durability, RedisConfig};
pub use driver::DRIVER;
pub use storage::RedisStorage;
