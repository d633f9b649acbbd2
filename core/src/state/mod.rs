//! The claim state machine: one pure function, [`step`], says what may happen to a message.
//!
//! ```text
//!             enqueue               claim (new token, lease until)
//!   ───────────────────▶ Pending ──────────────────────────────────▶ Claimed ◀── renew
//!                         ▲ ▲ ▲                                      │ │ │ │ │
//!                         │ │ └── release / hand back (not charged) ─┘ │ │ │ │
//!                         │ └──── retry (attempts += 1, due later) ────┘ │ │ │
//!                         ├────── taken by a later claim after expiry ───┘ │ │   (struck in that same step)
//!                         │                        published ──────────────┘ │
//!                         │                            ▼                     ▼  bury(reason)
//!                         │                        Published               Dead
//!                         └────────── redrive (both counters reset) ─────────┘
//! ```
//!
//! Every storage is tested against it. The function knows one message; what concerns several (order per key, runs, who
//! is handed out to whom) is in [`Storage`](crate::Storage)'s contract.

mod record;
mod step;
#[cfg(test)]
mod tests;
// Not in a browser's memory: the search takes a minute and half a gigabyte there, and the function is the same.
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod worlds;

pub use record::{Lease, Record, State};
pub use step::{Command, Rejected, Transition, step};
