//! Positioned reads from a trace file, counted.
//!
//! A live file may be cut by its next writer, and a cut file under a map is a SIGBUS: so reads, not maps.

use crate::codec::{self, MAX_BODY_EXPANSION};
use crate::error::{Error, Result};
use crate::file::{FileHeader, FrameHeader, Kind, padded};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are read by place: a file, or an image of one in memory.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Present length; that of a live file grows.
    fn length(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on; an end within is an error.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        if metadata.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(metadata.len()) }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl Source for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let held = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..bytes.len()));
        bytes.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An open trace with its header.
#[derive(Debug)]
pub struct Input {
    source: Box<dyn Source>,
    path: PathBuf,
    header: FileHeader,
    payload_bytes: AtomicU64,
    other_bytes: AtomicU64,
}

impl Input {
    /// Opens `path` and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
        Self::of(file, path)
    }

    /// Reads the header of an open file; `path` names it in errors.
    ///
    /// # Errors
    /// Foreign, where this is no trace; Damaged or Unsupported, as the header says; Environment.
    pub fn of(source: impl Source + 'static, path: &Path) -> Result<Self> {
        let length = source.length().map_err(|cause| match cause.kind() {
            io::ErrorKind::IsADirectory => {
                Error::new(crate::ErrorKind::Foreign, "this is a folder, not a trace").in_file(path)
            }
            _ => Error::io("read", path, cause),
        })?;
        let mut bytes = [0; FileHeader::BYTES];
        let found = length.min(FileHeader::BYTES as u64) as usize;
        source.read_exact_at(&mut bytes[..found], 0).map_err(|cause| Error::io("read", path, cause))?;
        let header = FileHeader::decode(&bytes[..found]).map_err(|error| error.in_file(path))?;
        Ok(Input {
            source: Box::new(source),
            path: path.to_path_buf(),
            header,
            payload_bytes: AtomicU64::new(0),
            other_bytes: AtomicU64::new(FileHeader::BYTES as u64),
        })
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The file's present length.
    pub fn length(&self) -> Result<u64> {
        self.source.length().map_err(|cause| Error::io("read", &self.path, cause))
    }

    /// Bytes read so far: of payload frames, and of everything else.
    pub fn bytes_read(&self) -> (u64, u64) {
        (self.payload_bytes.load(Ordering::Relaxed), self.other_bytes.load(Ordering::Relaxed))
    }

    /// Reads the frame header at `offset`, and checks that the frame lies within the file's `length`.
    pub fn frame_header(&self, offset: u64, length: u64) -> Result<FrameHeader> {
        let mut bytes = [0; FrameHeader::BYTES];
        if offset.checked_add(FrameHeader::BYTES as u64).is_none_or(|end| end > length) {
            return Err(Error::damaged("the file ends within a frame header").at(offset).in_file(&self.path));
        }
        self.read(&mut bytes, offset, &self.other_bytes)?;
        let header =
            FrameHeader::decode(&bytes, &self.header.uuid, offset).map_err(|error| error.in_file(&self.path))?;
        if header.end() > length {
            return Err(Error::damaged("the file ends within a frame").at(offset).in_file(&self.path));
        }
        Ok(header)
    }

    /// Reads, checks and decompresses a frame's body.
    pub fn body(&self, header: &FrameHeader) -> Result<AlignedVec<64>> {
        let place = |error: Error| error.at(header.offset).in_file(&self.path);
        let counter = if header.kind == Kind::Payload { &self.payload_bytes } else { &self.other_bytes };
        let mut stored = zeros(padded(u64::from(header.stored_length)) as usize);
        self.read(&mut stored, header.offset + FrameHeader::BYTES as u64, counter)?;
        header.check_body(&stored).map_err(place)?;
        stored.resize(header.stored_length as usize, 0);
        if !header.is_compressed() {
            return Ok(stored);
        }
        codec::check_expansion(&stored, header.raw_length as usize, MAX_BODY_EXPANSION).map_err(place)?;
        let mut body = zeros(header.raw_length as usize);
        codec::decompress_exact(&stored, &mut body).map_err(place)?;
        Ok(body)
    }

    fn read(&self, bytes: &mut [u8], offset: u64, counter: &AtomicU64) -> Result<()> {
        self.source.read_exact_at(bytes, offset).map_err(|cause| Error::io("read", &self.path, cause).at(offset))?;
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn zeros(length: usize) -> AlignedVec<64> {
    let mut bytes = AlignedVec::with_capacity(length);
    bytes.resize(length, 0);
    bytes
}
