//! The NATS JetStream transport of the Pillarbox outbox, on [`async_nats`].
//!
//! The topic is the subject, and an outcome is `Ok` only after the stream that listens there has acknowledged the message. The id
//! travels as `Nats-Msg-Id`, by which a stream drops what it has seen within its window of duplicates (two minutes by
//! default); the ordering key travels in the header [`KEY_HEADER`].
//!
//! ```no_run
//! # async fn open() -> Result<(), pillarbox_core::Error> {
//! use pillarbox_nats::NatsTransport;
//!
//! let transport = NatsTransport::open("nats://localhost/?transport.stream=ORDERS").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! All keys of a batch are sent side by side, and the messages of one key one after the other, each when the one before it was
//! acknowledged. So what is accepted of a key is always a prefix of what was sent of it, and a relay may put a whole key into
//! one batch. Messages without a key are all in flight at once.
//!
//! # What travels
//!
//! Names of headers are ASCII in NATS: other bytes of a name, and `%` and `:`, are percent-encoded. Values are sent as they are; one
//! that NATS cannot carry (a line break, another control character, white space at an end) makes its message `Rejected`, as does a
//! header whose name belongs to NATS (`Nats-…`) or to this transport, and a topic that is no subject.
//!
//! With a [source](NatsConfig::source) each message is also a [CloudEvent](pillarbox_core::CloudEvents) in binary mode.
//!
//! **Architecture invariant:** nothing is published by a background task. The client's own reconnection is off, since it would send
//! what waited in its queue: what was in flight when a connection was lost is unknown, and only the relay decides to send it
//! again.

mod config;
mod connection;
mod credentials;
mod driver;
mod error;
mod flight;
mod judge;
mod properties;
mod transport;

pub use config::NatsConfig;
pub use driver::DRIVER;
pub use properties::KEY_HEADER;
pub use transport::NatsTransport;
