//! In-process transports of the Pillarbox outbox: [`MemoryTransport`], a bounded channel to a consumer in the same process, and
//! [`StdoutTransport`], a line of JSON per message.
//!
//! **Architecture invariant:** no runtime and no thread.

mod channel;
mod driver;
mod lines;

pub use channel::{MemoryConsumer, MemoryTransport};
pub use driver::DRIVER;
pub use lines::{LineTransport, StdoutTransport};
