//! Conformance suites, real servers and fault injection for the Pillarbox outbox.

pub mod check;
pub mod choices;
pub mod fault;
pub mod history;
#[cfg(feature = "servers")]
pub mod servers;
pub mod simulate;
pub mod storage;
pub mod transport;
