//! The program itself, against a real Redis, with standard output as the broker.

mod dead;
mod enqueueing;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod migrating;
mod refusing;
mod relaying;
#[cfg(feature = "redis-streams")]
mod routing;
pub(crate) mod run;
#[cfg(all(feature = "tls", feature = "rabbitmq"))]
mod tls;
#[cfg(unix)]
mod unheard;
