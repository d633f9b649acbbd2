//! The simulator, to compare its histories with those of the native build. What it exports stands in the library.

pub use pillarbox_browser::*;
