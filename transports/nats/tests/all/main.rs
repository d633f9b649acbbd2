//! The integration tests of the NATS transport, in one binary, on real servers.

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
mod wire;
