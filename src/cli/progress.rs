//! A bar on stderr for files that take a while to write.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `bytes` that are to be written.
pub(super) fn writing(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("writing {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
