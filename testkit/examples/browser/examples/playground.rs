//! The module behind the page. What it exports stands in the library.

pub use pillarbox_browser::*;
