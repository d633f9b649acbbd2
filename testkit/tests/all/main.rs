//! The integration tests of the testkit, in one binary, since linking many costs more than running them.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod assertions;
#[cfg(feature = "proptest")]
mod property;
#[cfg(feature = "servers")]
mod servers;
mod simulate;
mod storage;
#[cfg(feature = "servers")]
mod throughput;
mod transport;
