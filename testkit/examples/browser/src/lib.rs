//! Pillarbox in WebAssembly: as much of a binding as the playground and the tests under Node need.
//!
//! The module imports nothing from its host. Calls are JSON through its memory: the host makes room with `input`, writes the
//! call there, calls `call`, and reads as many bytes as that answers from `output`. Time and randomness come with the calls,
//! so the same calls give the same answers everywhere.

mod answer;
mod exports;
#[cfg(all(feature = "js", target_family = "wasm"))]
mod js;
mod playground;
#[cfg(feature = "simulator")]
mod simulator;
#[cfg(not(target_family = "wasm"))]
pub mod site;

pub use answer::answer;
#[cfg(feature = "simulator")]
pub use simulator::hash;
