//! Bytes of a model: a stretch of a mapped file, or memory of our own. Cheap to clone.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// A stretch of a mapped file, or bytes in memory. Cheap to clone: clones share the mapping.
///
/// A mapping shows what the file holds now. A file that another process rewrites changes under the reader
/// ([`super::Model::check_unchanged`] finds that), and one that is cut short ends the process with SIGBUS.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Map(Arc<Mmap>),
    Memory(Arc<Vec<u8>>),
}

impl Bytes {
    /// Maps a whole file for reading.
    ///
    /// # Errors
    /// The operating system's, when the file cannot be mapped.
    pub(crate) fn map(file: &File, path: &Path) -> Result<Bytes> {
        // SAFETY: the mapping is private and only read. Another process may change the file meanwhile; the bytes
        // are plain numbers for which every value is valid, so the worst case is wrong numbers or SIGBUS.
        let map = unsafe { Mmap::map(file) }.map_err(|cause| Error::io("map", path, cause))?;
        let range = 0..map.len();
        Ok(Bytes { owner: Owner::Map(Arc::new(map)), range })
    }

    /// The bytes `range` of these; `None` where there are fewer.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Bytes { owner: self.owner.clone(), range })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes { range: 0..bytes.len(), owner: Owner::Memory(Arc::new(bytes)) }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &self.owner {
            Owner::Map(map) => map,
            Owner::Memory(bytes) => bytes,
        };
        &whole[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    /// Where the bytes are, not the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = match self.owner {
            Owner::Map(_) => "mapped",
            Owner::Memory(_) => "memory",
        };
        write!(f, "Bytes({owner} {:?})", self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn slices_of_slices_stay_inside() {
        let bytes = Bytes::from((0..10u8).collect::<Vec<_>>());
        let middle = bytes.slice(2..8).unwrap();
        assert_eq!(&*middle.slice(1..3).unwrap(), &[3, 4]);
        assert!(middle.slice(0..7).is_none(), "the owner has a byte there, the slice does not");
        assert!(middle.slice(6..6).unwrap().is_empty());
    }

    #[test]
    fn a_mapping_outlives_its_file_handle() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"weights").unwrap();
        let bytes = Bytes::map(file.as_file(), file.path()).unwrap();
        drop(file);
        assert_eq!(&*bytes, b"weights");
    }
}
