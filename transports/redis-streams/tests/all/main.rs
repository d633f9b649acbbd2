//! All integration tests, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod conformance;
mod failures;
mod opening;
mod outages;
mod streams;
mod support;
