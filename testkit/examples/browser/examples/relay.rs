//! A relay with the browser's own timer, through wasm-bindgen. What it exports stands in the library.

pub use pillarbox_browser::*;
