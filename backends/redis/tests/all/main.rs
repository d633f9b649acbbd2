//! The integration tests of the Redis backend, in one binary, on real servers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod attack;
mod bounds;
mod conformance;
mod failover;
mod failures;
mod listing;
mod opening;
mod support;
mod topologies;
mod transactions;
