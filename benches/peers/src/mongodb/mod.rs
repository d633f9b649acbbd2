//! Peers on MongoDB. Everything is acknowledged by the majority, as Pillarbox's writes are.

mod mq_bridge;
mod one_by_one;

pub(crate) use mq_bridge::MqBridge;
pub(crate) use one_by_one::OneByOne;
