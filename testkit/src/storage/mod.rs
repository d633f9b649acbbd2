//! The conformance suite of storages: every rule of the [architecture](pillarbox_core::docs::architecture) that concerns
//! a store alone, as named tests.
//!
//! Implement [`StorageHarness`], [`TestStore`] and [`Producer`] for the storage, then write one line:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/memory_harness.rs"));
//! # fn main() {}
//! pillarbox_testkit::storage_suite!(#[tokio::test] async harness = MyHarness);
//! ```
//!
//! The guide shows it whole: [Test your own storage](crate::docs::test_your_own_storage).
//!
//! Each case is a test of its own, documented in [`cases`]. One that fails says which rule was broken, what was expected,
//! what was seen and what was done before. The suite uses no runtime and never sleeps: time is set with
//! [`TestStore::advance`], concurrency is several futures polled side by side, and a crash is a future that is dropped.
//!
//! Stores differ legitimately: a run may be one message, a batch or a lane, and what waits behind a suspect in its lane may
//! be held up. The cases ask only for what the architecture promises.

pub mod cases;
mod harness;
mod list;
mod model;
mod observed;
mod rule;
mod suite;
mod world;

pub use harness::{Abilities, Ability, BoxError, OutboxSettings, Producer, StorageHarness, TestStore};
pub use rule::{Rule, Violation};
pub use suite::{Case, Trial};

crate::__each_storage_case! { @list [list::table_of_cases] {} }
