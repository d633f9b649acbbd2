//! The RabbitMQ transport of the Pillarbox outbox, on [`lapin`].
//!
//! Messages are persistent and `mandatory`, and an outcome is `Ok` only after the broker's publisher confirm. The topic is the
//! routing key; the id travels as `message_id`, the ordering key in the header [`KEY_HEADER`], headers as long strings.
//!
//! ```no_run
//! # async fn open() -> Result<(), pillarbox_core::Error> {
//! use pillarbox_rabbitmq::RabbitMqTransport;
//!
//! let transport = RabbitMqTransport::open("amqp://localhost/?transport.exchange=orders&transport.declare=topic").await?;
//! # Ok(())
//! # }
//! ```
//!
//! With a [source](RabbitMqConfig::source) each message is also a [CloudEvent](pillarbox_core::CloudEvents) in binary mode.
//!
//! Confirms come in any order, and a message that is returned does not stop those behind it. So the transport gives no prefix
//! per key, and a relay sends one message of a key at a time.
//!
//! No error and no `Debug` output shows the password. The client itself logs every frame at the level `TRACE`, the login among
//! them: leave `lapin=trace` off where logs are kept. At `WARN` it logs messages that the broker returned, payload included.
//!
//! **Architecture invariant:** nothing is published by a background task, and lapin's own recovery is off: what was in flight
//! when a connection was lost is unknown, and only the relay decides to send it again.

mod channel;
mod config;
mod connection;
mod dial;
mod driver;
mod error;
mod flight;
mod judge;
mod properties;
mod transport;

pub use config::RabbitMqConfig;
pub use driver::DRIVER;
pub use properties::KEY_HEADER;
pub use transport::RabbitMqTransport;
