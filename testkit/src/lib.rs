//! Conformance suites, deterministic simulation, fault injection and real servers for the Pillarbox outbox.
//!
//! Begin with the guide: [Test your own storage](docs::test_your_own_storage).
//!
//! - [`storage`] and [`transport`]: suites of named cases that prove an implementation.
//! - [`simulate`]: production relays on a storage in virtual time, with everything that goes wrong decided by a seed; its
//!   [`history`] is judged by [`check`].
//! - [`failures`]: those that outboxes are known for, and the cases that show them.
//! - [`fault`]: decorators that fail, delay and repeat calls; [`choices`]: what a seed decides.
//! - [`assertions`]: which messages a transaction of an application left behind.
//! - `property` (the feature `proptest`): sequences of commands, drawn and shrunk, against the model of the rules.
//! - `servers` (a feature): real servers as child processes, and a proxy that breaks connections. With it, `transport::outages`: a
//!   relay whose broker is killed, paused and restarted; and `throughput`: a relay beside the client that its transport stands on.

pub mod assertions;
pub mod check;
pub mod choices;
#[cfg(feature = "servers")]
mod clock;
mod conclusion;
pub mod docs;
pub mod failures;
pub mod fault;
pub mod history;
#[cfg(feature = "proptest")]
pub mod property;
mod random;
#[cfg(feature = "servers")]
pub mod servers;
pub mod simulate;
pub mod storage;
#[cfg(feature = "servers")]
pub mod throughput;
pub mod transport;
