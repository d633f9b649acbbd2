//! The in-memory storage against every case of the suite, and what is special about it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod conformance;
mod transactions;
