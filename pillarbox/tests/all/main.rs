//! All integration tests, in one binary.

#[cfg(feature = "blocking")]
mod blocking;
#[cfg(all(feature = "events", feature = "memory"))]
mod events;
#[cfg(all(feature = "cli", feature = "redis"))]
mod program;
#[cfg(feature = "memory")]
mod relaying;
