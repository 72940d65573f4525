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

    /// The same for what was appended until now, to be run by another thread while appends go on; `None` where the
    /// storage cannot do that.
    fn detached_sync(&self) -> Option<DetachedSync> {
        None
    }

    /// A name for error messages.
    fn path(&self) -> &Path;
}

/// A sync that needs no storage at hand.
pub type DetachedSync = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A file that this process alone writes: it is locked until dropped.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
}

impl FileStorage {
    /// Opens or creates `path` for appending and locks it against other writers.
    ///
    /// The lock ends with its process, however that ends: none is ever left behind.
    ///
    /// # Errors
    /// Environment, where it cannot be opened or another process writes to it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::locked(OpenOptions::new().create(true).truncate(false), path)
    }

    /// Creates `path` for appending and locks it.
    ///
    /// # Errors
    /// Usage, where something of that name exists; Environment.
    pub fn create(path: &Path) -> Result<Self> {
        Self::locked(OpenOptions::new().create_new(true), path)
    }

    fn locked(options: &mut OpenOptions, path: &Path) -> Result<Self> {
        let file = options.read(true).write(true).open(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::usage("this exists already and is not overwritten: name another file").in_file(path)
            }
            _ => Error::io("open for appending", path, cause),
        })?;
        match file.try_lock() {
            Ok(()) => Ok(FileStorage { file, path: path.to_path_buf() }),
            Err(std::fs::TryLockError::WouldBlock) => Err(in_use(&file, path)),
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

/// Hands the entry of `path` in its folder to stable storage: a synced file that no folder names is lost.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| Error::io("sync", folder, cause))
}

fn in_use(file: &File, path: &Path) -> Error {
    let holder = super::lock::holder(file)
        .map_or_else(|| "another process".to_owned(), |pid| format!("another process (process id {pid})"));
    let message = format!("{holder} is writing to this trace: wait for its end, or record to another file");
    Error::new(ErrorKind::Environment, message).in_file(path)
}

impl Drop for FileStorage {
    /// A process that was started meanwhile may still hold a copy of the handle, and with it the lock: so it is given
    /// back here. Where that fails, it ends with the last copy.
    fn drop(&mut self) {
        drop(self.file.unlock());
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

    fn detached_sync(&self) -> Option<DetachedSync> {
        // The same open file: the kernel tells each failed write-back to one of its syncs, whichever handle asks.
        let file = self.file.try_clone().ok()?;
        Some(Box::new(move || file.sync_data()))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
