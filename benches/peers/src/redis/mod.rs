//! Peers on Redis.

mod apalis;
mod oxana;

pub(crate) use apalis::Apalis;
pub(crate) use oxana::Oxana;
