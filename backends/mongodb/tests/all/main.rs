//! The integration tests of the MongoDB backend, in one binary, on real servers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod attack;
mod conformance;
mod faults;
mod faulty;
mod hints;
mod interrupted;
mod opening;
mod plans;
mod refused;
mod support;
mod transactions;
mod turns;
