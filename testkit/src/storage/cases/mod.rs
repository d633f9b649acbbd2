//! The cases of the suite. The macro [`storage_suite!`](crate::storage_suite) makes a test of each; the numbers are those
//! of the architecture's rules, `F` stands for the failures that outboxes are known for.

pub mod admin;
pub mod answers;
pub mod cancel;
pub mod claims;
pub mod concurrent;
pub mod due;
pub mod enqueueing;
pub mod fencing;
pub mod heads;
pub mod order;
pub mod strikes;
pub mod waking;
pub mod walks;
