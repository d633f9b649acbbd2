//! All integration tests, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

#[cfg(feature = "blocking")]
mod blocking;
#[cfg(all(feature = "events", feature = "memory"))]
mod events;
#[cfg(all(feature = "cli", feature = "redis"))]
mod program;
#[cfg(all(feature = "cli", feature = "memory", feature = "redis", feature = "rabbitmq"))]
mod proofs;
#[cfg(feature = "memory")]
mod relaying;
