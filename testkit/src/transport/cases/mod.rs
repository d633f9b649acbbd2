//! The cases, by what they are about. Each is named as the test that the macro makes of it.

pub mod cancel;
pub mod delivering;
pub mod order;
pub mod outages;
pub mod outcomes;
