//! How fast an outbox enqueues and drains, beside the fastest that its store can do at all.
//!
//! A *floor* is what the same client does on the same server in the same run without an outbox: it moves the same bytes, and keeps
//! no lease, no order and no count. The ratio to it says what the outbox costs, and it is comparable between machines, which
//! the rates alone are not.

mod drain;
mod messages;
mod mongo_store;
mod nothing;
mod redis_backlog;
mod redis_store;
mod row;
mod sql_store;

pub use messages::{Keys, PAYLOAD};
pub use mongo_store::{MongoBench, MongoFloor};
pub use nothing::{Nowhere, Supply};
pub use redis_backlog::{Drained, RedisBacklog, ServerCalls, drain_here};
pub use redis_store::RedisBench;
pub use row::{Row, Work};
pub use sql_store::SqlBench;

/// What goes wrong in a measurement ends it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
