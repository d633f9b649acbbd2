//! The program itself, against a real Redis, with standard output as the broker.

mod dead;
mod enqueueing;
mod refusing;
mod relaying;
pub(crate) mod run;
#[cfg(all(feature = "tls", feature = "rabbitmq"))]
mod tls;
