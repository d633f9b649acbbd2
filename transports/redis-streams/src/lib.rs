//! The Redis Streams transport of the Pillarbox outbox, on the client [`redis`].
//!
//! Each message is one `XADD` to the stream that its topic names, behind an optional prefix; its fields are listed at
//! [`FIELDS`]. An outcome is `Ok` only after the server has answered with the entry's id, and, where
//! [replicas](RedisStreamsConfig::replicas) are asked for, after so many of them have it.
//!
//! ```no_run
//! # async fn open() -> Result<(), pillarbox_core::Error> {
//! use pillarbox_redis_streams::RedisStreamsTransport;
//!
//! let transport = RedisStreamsTransport::open("redis://localhost/?transport.prefix=events:").await?;
//! # Ok(())
//! # }
//! ```
//!
//! With a [source](RedisStreamsConfig::source) each entry also has the attributes of a [CloudEvent](pillarbox_core::CloudEvents).
//!
//! # Order
//!
//! Messages of one key that share a publish are sent as one transaction, or, where they go to several streams, as one script, which
//! stops at the first that fails. So what is accepted of a key is always a prefix of what was sent of it, and a relay may put a whole
//! key into one batch.
//!
//! # What Redis keeps
//!
//! An acknowledged entry is as safe as the server keeps it: `appendonly yes`, with `appendfsync always` where not even the last
//! second may be lost, and `maxmemory-policy noeviction` or a `volatile-` one, since streams do not expire. Opening warns about
//! the first and refuses to go on where streams may be evicted.
//!
//! **Architecture invariant:** nothing is published by a background task, and the client never sends a command twice: what was in
//! flight when a connection was lost is unknown, and only the relay decides to send it again.

mod checks;
mod config;
mod connection;
mod driver;
mod error;
mod flight;
mod judge;
mod plan;
mod properties;
mod transport;

pub use config::RedisStreamsConfig;
pub use driver::DRIVER;
pub use properties::{ATTRIBUTE_PREFIX, FIELDS, HEADER_PREFIX};
pub use transport::RedisStreamsTransport;
