//! The relay as a whole, driven over stores and transports that are nothing but their contract.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod allocations;
mod driving;
mod supply;
