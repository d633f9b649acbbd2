//! The conformance suite of transports: the contract of [`Transport`](pillarbox_core::Transport), as named tests.
//!
//! Implement [`TransportHarness`] for the transport, then write one line:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/shelf_harness.rs"));
//! # fn main() {}
//! pillarbox_testkit::transport_suite!(#[tokio::test] async harness = MyHarness::default());
//! ```
//!
//! Each case is a test of its own, documented in [`cases`]. One that fails says what the contract demands, what was expected,
//! what was seen and what was done before. What arrived is read from the broker by other means than the transport, so that a
//! transport which only says that it published is found.
//!
//! The suite uses no runtime and never sleeps: concurrency is several futures polled side by side, and a relay that dies is a
//! future that is dropped. A transport with timeouts of its own should be connected with short ones, since a broken one may
//! wait for each of them.

pub mod cases;
mod harness;
mod list;
#[cfg(feature = "servers")]
pub mod outages;
mod suite;
mod violation;
mod world;

pub use crate::storage::BoxError;
pub use harness::{Abilities, Ability, Received, TransportHarness};
pub use suite::{Case, Trial};
pub use violation::Violation;

crate::__each_transport_case! { @list [list::table_of_cases] {} }
