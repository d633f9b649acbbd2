//! The design, as it was built.

#[doc = include_str!("architecture.md")]
pub mod architecture {}
