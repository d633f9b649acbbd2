//! The relay: a machine without I/O, and the future that drives it over a storage, a transport and a timer.

mod config;
mod driver;
mod environment;
pub mod machine;
mod observer;
#[cfg(any(test, feature = "clock"))]
mod random;

pub use config::RelayConfig;
pub use driver::Relay;
pub use environment::DEFAULT_PREFIX;
pub use observer::{Observation, Observer, Silent};
