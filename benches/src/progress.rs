use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar of so many steps; none is drawn where the rows are `json`, for other programs to read.
#[must_use]
pub fn progress(json: bool, length: u64, name: &str) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    let template = "{elapsed_precise} {prefix} {wide_bar} {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
