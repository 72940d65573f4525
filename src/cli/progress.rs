//! A bar on stderr for files that take a while to write.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `bytes` that are to be written.
pub(super) fn writing(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("writing {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A bar for `operations` that are to be `done` (an -ing form).
pub(in crate::cli) fn operations(done: &str, operations: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} operation {pos}/{len} {elapsed}");
    let bar = ProgressBar::new(operations as u64).with_message(done.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A bar for `elements` of weights that are to be recorded.
pub(in crate::cli) fn weights(elements: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("weights {bar:30} {percent}% {elapsed}");
    ProgressBar::new(elements).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
