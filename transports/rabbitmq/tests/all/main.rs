//! The integration tests of the RabbitMQ transport, in one binary, on real nodes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod cancelling;
mod conformance;
mod cuts;
mod kills;
mod opening;
mod refusals;
mod routing;
mod support;
mod wire;
