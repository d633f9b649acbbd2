//! The integration tests of the SQL backends, in one binary, on real databases.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod collisions;
mod conformance;
mod contract;
mod faults;
mod kills;
mod marks;
mod pooler;
mod spakky;
mod support;
