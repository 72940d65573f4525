//! Where the writer's bytes go: the seam at which tests inject faults.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An append-only place for bytes.
pub trait Storage: Send {
    /// Appends all of `parts`, one after the other.
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()>;

    /// Hands everything appended to stable storage.
    fn sync(&mut self) -> io::Result<()>;

    /// A name for error messages.
    fn path(&self) -> &Path;
}

/// A file that this process alone writes: it is locked until dropped.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
}

impl FileStorage {
    /// Opens or creates `path` for appending and locks it against other writers.
    ///
    /// # Errors
    /// Environment, where it cannot be opened or another process writes to it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|cause| Error::io("open for appending", path, cause))?;
        match file.try_lock() {
            Ok(()) => Ok(FileStorage { file, path: path.to_path_buf() }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Environment, "another process is writing to this trace").in_file(path))
            }
            Err(std::fs::TryLockError::Error(cause)) => Err(Error::io("lock", path, cause)),
        }
    }

    /// The file, for reading what it holds before appending.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Cuts the file to `length` bytes and goes on there.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(|cause| Error::io("cut", &self.path, cause))?;
        self.file.seek(SeekFrom::Start(length)).map_err(|cause| Error::io("seek", &self.path, cause))?;
        Ok(())
    }
}

impl Storage for FileStorage {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<io::IoSlice<'_>> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while rest.iter().any(|slice| !slice.is_empty()) {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => io::IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
