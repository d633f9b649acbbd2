//! The integration tests of the SQL backends, in one binary, on real databases.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod clients;
mod collisions;
mod conformance;
mod contract;
mod faults;
mod half_open;
mod kills;
mod marks;
mod migrations;
mod open_transactions;
mod order;
mod pooler;
mod retention;
mod spakky;
mod support;
mod unsynced_claims;
