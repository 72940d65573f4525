//! The trace file that a recording goes to, and the name of its run there.

use super::identity::fill_random;
use crate::error::{Error, Result};
use crate::file::{FileHeader, FileStorage, Writer};
use crate::open::{Trace, append};
use crate::recorder::now_us;
use std::path::Path;

/// The labels that `out` has; none where it is not there or empty.
pub fn labels(out: &Path) -> Result<Vec<String>> {
    match std::fs::metadata(out) {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::usage("this is a folder: give --out a file in it").in_file(out))
        }
        Ok(metadata) if !metadata.is_file() || metadata.len() > 0 => {
            Ok(Trace::open(out)?.runs().iter().map(|run| run.identity.label.clone()).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Opens `out` for a run more; gives the labels that it has.
pub fn open_out(out: &Path) -> Result<(Writer<FileStorage>, Vec<String>)> {
    let mut uuid = [0; 16];
    fill_random(&mut uuid)?;
    append(out, FileHeader { uuid, created_us: now_us() })
}

/// The name of a run: the `given` one, or that of `model` with the first number that is free.
///
/// # Errors
/// Usage, where the given one is empty or `taken`.
pub fn label(given: Option<&str>, model: &Path, taken: &[String]) -> Result<String> {
    if let Some(label) = given {
        return match taken.iter().any(|taken| taken == label) {
            _ if label.is_empty() => {
                Err(Error::usage("an empty --label names nothing: give a name, or leave the option out"))
            }
            true => Err(Error::usage(format!("the file already has a run `{label}`: choose another --label"))),
            false => Ok(label.to_owned()),
        };
    }
    let path = std::fs::canonicalize(model).unwrap_or_else(|_| model.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = name.map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
    let free = (1..).map(|number| format!("{stem}-{number}")).find(|label| !taken.contains(label));
    Ok(free.unwrap_or(stem))
}
