//! Lengths as people read them, and whether the disk holds them.

use crate::error::{Error, ErrorKind, Result};
use std::path::Path;

/// Refuses to write `bytes` to `path` where its disk has less room; `advice` says what to do then.
///
/// # Errors
/// Environment where there is less room, or the folder cannot be looked at.
pub(super) fn check_space(path: &Path, bytes: u64, advice: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(folder)
        .map_err(|cause| Error::io("open the folder", folder, std::io::Error::from(cause)))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes <= free {
        return Ok(());
    }
    let (bytes, free) = (bytes_text(bytes), bytes_text(free));
    let message = format!("{bytes} may be written, and the disk has {free} free: {advice}");
    Err(Error::new(ErrorKind::Environment, message).in_file(path))
}

/// A length in the largest binary unit that keeps it above one.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4) as usize;
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_well() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(5 << 30), "5.0 GiB");
    }

    #[test]
    fn more_than_any_disk_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        check_space(&path, 1, "").unwrap();
        let error = check_space(&path, u64::MAX, "delete something").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment);
        assert!(error.to_string().ends_with("free: delete something"), "{error}");
    }
}
