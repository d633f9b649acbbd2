//! The Kafka transport of the Pillarbox outbox, on librdkafka by [`rdkafka`].
//!
//! An outcome is `Ok` only after all replicas that are in sync have the message (`acks=all`). The producer is idempotent: when it sends a
//! message again by itself, after a leader moved or an answer was lost, the broker drops the repetition.
//!
//! ```no_run
//! # async fn open() -> Result<(), pillarbox_core::Error> {
//! use pillarbox_kafka::KafkaTransport;
//!
//! let transport = KafkaTransport::open("kafka://one:9092,two:9092?transport.source=/orders").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What travels
//!
//! Messages are [CloudEvents](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md) in binary mode:
//! the topic is Kafka's topic, the ordering key is the record's key, the payload is its value. Headers carry `ce_id`, by which
//! consumers recognise a redelivery, `ce_source`, `ce_type` (the topic) and the other attributes of
//! [`CloudEvents`](pillarbox_core::CloudEvents); `content-type` is the content type. Headers of the message that CloudEvents has no name for
//! travel as they are, and `traceparent` and `tracestate` both ways, so that tracing finds them. The record's time is that of the
//! send: retention counts from it, and an old message must not be deleted as soon as it arrives.
//!
//! A key chooses its partition as Kafka's own clients do (murmur2).
//!
//! # Order
//!
//! All keys of a batch are sent side by side, and the messages of one key one after the other, each when the one before it was
//! confirmed. So what is accepted of a key is always a prefix of what was sent of it.
//!
//! The idempotent producer alone does not give that. When the broker refuses a batch of records for good, librdkafka begins a new
//! epoch and sends the batches behind it again, which are then accepted; with its `enable.gapless.guarantee` it stops instead, but a
//! broker that knows nothing of the producer yet takes any first sequence number, so that a batch in flight behind the refused
//! one may be accepted all the same; and messages that time out are not covered at all.
//!
//! **Architecture invariant:** what a lost connection had in flight is given up, not sent again behind the relay's back: when no broker is
//! left, the producer with all that waits in it is discarded, its messages are `Unavailable`, and only the relay decides to send them
//! again. While one broker of several is away the producer waits for another leader, within `transport.confirm_timeout`.

mod client;
mod config;
mod connection;
mod driver;
mod error;
mod flight;
mod judge;
mod properties;
mod transport;

pub use config::{KafkaConfig, Sasl};
pub use driver::DRIVER;
pub use transport::KafkaTransport;
