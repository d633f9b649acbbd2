//! What runs in WebAssembly is what runs here.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and helpers of tests are not marked as tests"
)]

mod build;
mod node;
mod page;
