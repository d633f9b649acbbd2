//! The relay as a whole, driven over stores and transports that are nothing but their contract.

mod allocations;
mod driving;
mod supply;
