//! Progress on a terminal, and nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of `total` messages, or a count without an end. Draws on standard error, if that is a terminal.
pub(crate) fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        None => (ProgressBar::no_length(), "{spinner} {msg} {human_pos} {per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    // The templates above are valid, which a test shows.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
