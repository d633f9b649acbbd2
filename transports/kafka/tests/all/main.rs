//! The integration tests of the Kafka transport, in one binary, on real brokers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod conformance;
mod failures;
mod opening;
mod outages;
mod refusals;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod wire;
