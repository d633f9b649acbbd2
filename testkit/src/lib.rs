//! Conformance suites, real servers and fault injection for the Pillarbox outbox.

pub mod choices;
pub mod fault;
#[cfg(feature = "servers")]
pub mod servers;
pub mod storage;
pub mod transport;
