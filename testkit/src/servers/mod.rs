//! Real servers for tests and benches: child processes on free loopback ports, in temporary folders.
//!
//! A test starts what it needs, and nothing has to run beforehand. Tests run in parallel, in one process or in many. What
//! the machine lacks is installed by `scripts/setup`, and an error about a missing program says so; a test never passes
//! because a server was not there.
//!
//! ```no_run
//! use pillarbox_testkit::servers::{Proxy, RabbitMqNode, RedisServer};
//!
//! # fn main() -> Result<(), pillarbox_testkit::servers::ServerError> {
//! let redis = RedisServer::options().append_only().start()?;
//! let proxy = Proxy::start(redis.address())?;
//! let store = proxy.through(&redis.url());
//!
//! let virtual_host = RabbitMqNode::shared()?.virtual_host()?;
//! let broker = virtual_host.url();
//!
//! redis.kill(); // SIGKILL: what was not on disk is lost
//! redis.restart()?; // the same port, the same data folder
//! proxy.cut(); // every connection breaks, the server lives
//! # Ok(())
//! # }
//! ```
//!
//! # Blocking
//!
//! Every call here blocks the thread, so that tests without a runtime can use it too. Inside an async test call it where
//! nothing else has to make progress, or within `tokio::task::spawn_blocking`: starting Redis takes some milliseconds,
//! starting RabbitMQ five seconds and more.
//!
//! # What remains afterwards
//!
//! Nothing. A server is killed when its value is dropped. If the test process ends without dropping it, because it was
//! killed, aborted, or keeps the value in a `static`, a guardian process notices, kills the servers and removes their
//! folders. The guardian is a shell that waits for the end of a pipe which only the test process holds.

mod error;
mod folder;
mod guardian;
mod kafka;
mod launch;
mod mariadb;
mod mongodb;
mod nats;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod program;
mod proxy;
mod rabbitmq;
mod redis;
mod unprivileged;
mod wait;

pub use error::{ServerError, ServerErrorKind};
pub use folder::ServerFolder;
pub use kafka::{KafkaOptions, KafkaServer};
pub use launch::Launch;
pub use mariadb::MariaDbServer;
pub use mongodb::{MongoReplicaSet, MongoServer};
pub use nats::NatsServer;
pub use pgbouncer::PgBouncer;
pub use port::free_port;
pub use postgres::PostgresServer;
pub use process::ChildServer;
pub use program::find_program;
pub use proxy::Proxy;
pub use rabbitmq::{RabbitMqNode, RabbitMqVirtualHost};
pub use redis::{RedisCluster, RedisOptions, RedisSentinels, RedisServer};
