//! Guides, compiled.

#[doc = include_str!("test_your_own_storage.md")]
///
/// # The harness, whole
///
/// For a storage in memory. Those of the project's own stores, with real servers, are in `tests/all/conformance.rs` of each.
///
/// ```
#[doc = include_str!("memory_harness.rs")]
/// ```
pub mod test_your_own_storage {}
