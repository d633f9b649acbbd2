//! How fast an outbox enqueues and drains, beside the fastest that its store can do at all.
//!
//! A *floor* is what the same client does on the same server in the same run without an outbox: it moves the same bytes, and keeps
//! no lease, no order and no count. The ratio to it says what the outbox costs, and it is comparable between machines, which
//! the rates alone are not.

mod broker;
mod brokers;
mod drain;
mod growth;
mod latency;
mod measure;
mod memory;
mod memory_store;
mod messages;
mod mongo_store;
mod nothing;
mod plot;
mod progress;
mod redis_store;
mod row;
mod sql_store;
mod subject;
mod table;

pub use brokers::{BrokerName, publish};
pub use growth::{ClaimTimes, Drained, Stored, claims, drain_here, fill};
pub use measure::{Case, fill_and_drain, measure};
pub use memory_store::{MemoryBench, drain_memory};
pub use messages::{Keys, PAYLOAD};
pub use mongo_store::MongoBench;
pub use nothing::{Nowhere, Still};
pub use plot::plot;
pub use progress::progress;
pub use redis_store::RedisBench;
pub use row::{Row, Work};
pub use sql_store::{Place, SqlBench};
pub use subject::Subject;
pub use table::table;

/// What goes wrong in a measurement ends it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
