//! The transactional outbox: an application writes its business data and its messages in one transaction of its own
//! database, and a relay publishes the messages to a broker: at least once, with a stable id, in order per key.
//!
//! This is the crate to add. It brings [the core](pillarbox_core), the stores and transports by feature, the runtimes' timers,
//! observers, and a [`registry`] that opens stores and transports by URL. The program of the same name comes with the
//! feature `cli`.
//!
//! ```
//! use pillarbox::memory::MemoryStorage;
//! use pillarbox::{Enqueue, Message};
//! use std::sync::{Arc, Mutex};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let outbox = MemoryStorage::new();
//! let orders = Arc::new(Mutex::new(Vec::new()));
//!
//! // Business data and message, both or neither.
//! let mut transaction = outbox.transaction();
//! let table = orders.clone();
//! transaction.stage(move || table.lock().unwrap().push("order-1"));
//! let message = Message::to("orders.created").key("order-1").payload(r#"{"total":12}"#)?;
//! outbox.enqueue(&mut transaction, &[message]).await?;
//! transaction.commit();
//! # assert_eq!(*orders.lock().unwrap(), ["order-1"]);
//! # Ok::<(), pillarbox::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! | feature | brings |
//! | --- | --- |
//! | `memory` (default) | `memory`: the in-memory storage, and transports within the process |
//! | `redis` | `redis`: the storage in Redis |
//! | `sqlite`, `postgres`, `mysql` | `sql`: the storages in SQL databases |
//! | `mongodb` | `mongodb`: the storage in MongoDB |
//! | `rabbitmq` | `rabbitmq`: the transport to RabbitMQ |
//! | `redis-streams` | `redis_streams`: the transport to Redis Streams |
//! | `http` | `http`: the transport to HTTP endpoints, as CloudEvents |
//! | `nats` | `nats`: the transport to NATS JetStream |
//! | `kafka` | `kafka`: the transport to Kafka |
//! | `tls` | TLS for them, with the system's root certificates |
//! | `tokio` (default) | `TokioTimer` |
//! | `js` | `BrowserTimer`, and the browser's clock and randomness: for `wasm32-unknown-unknown` with wasm-bindgen |
//! | `futures-timer` | `FuturesTimer`, for smol, async-std and one's own runtime |
//! | `blocking` | `blocking`: a relay on a thread of its own |
//! | `events` | `events`: typed events, to handlers in the process or to the outbox |
//! | `tracing` | `TracingObserver` |
//! | `metrics` | `MetricsObserver` |
//! | `cli` | the program `pillarbox` |

#[cfg(feature = "blocking")]
pub mod blocking;
mod observers;
mod registry;
#[cfg(any(
    feature = "tokio",
    feature = "futures-timer",
    all(feature = "js", target_family = "wasm", target_os = "unknown")
))]
mod timer;

#[cfg(feature = "metrics")]
pub use observers::MetricsObserver;
#[cfg(feature = "tracing")]
pub use observers::TracingObserver;
pub use observers::{CountingObserver, Counts, Observers};
pub use pillarbox_core::*;
pub use registry::registry;
#[cfg(all(feature = "js", target_family = "wasm", target_os = "unknown"))]
pub use timer::BrowserTimer;
#[cfg(feature = "futures-timer")]
pub use timer::FuturesTimer;
#[cfg(feature = "tokio")]
pub use timer::TokioTimer;

/// The in-memory storage, and transports within the process.
#[cfg(feature = "memory")]
pub mod memory {
    pub use pillarbox_memory::{MemoryClock, MemoryConfig, MemoryStorage, MemoryTransaction};
    pub use pillarbox_memory_transport::{LineTransport, MemoryConsumer, MemoryTransport, StdoutTransport};
}

/// The storage in Redis.
#[cfg(feature = "redis")]
pub use pillarbox_redis as redis;

/// The storages in SQL databases.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use pillarbox_sql as sql;

/// The storage in MongoDB.
#[cfg(feature = "mongodb")]
pub use pillarbox_mongodb as mongodb;

/// The transport to RabbitMQ.
#[cfg(feature = "rabbitmq")]
pub use pillarbox_rabbitmq as rabbitmq;

/// The transport to HTTP endpoints: webhooks, as CloudEvents.
#[cfg(feature = "http")]
pub use pillarbox_http as http;

/// The transport to Redis Streams.
#[cfg(feature = "redis-streams")]
pub use pillarbox_redis_streams as redis_streams;

/// The transport to NATS JetStream.
#[cfg(feature = "nats")]
pub use pillarbox_nats as nats;

/// The transport to Kafka.
#[cfg(feature = "kafka")]
pub use pillarbox_kafka as kafka;

/// The README's examples are tests.
#[cfg(all(doctest, feature = "memory", feature = "redis", feature = "rabbitmq"))]
#[doc = include_str!("../../README.md")]
mod readme {}
