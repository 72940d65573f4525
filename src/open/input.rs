//! Positioned reads from a trace file, counted.
//!
//! A live file may be cut by its next writer, and a cut file under a map is a SIGBUS: so reads, not maps.

use crate::codec::{self, MAX_BODY_EXPANSION};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{ALIGNMENT, FileHeader, FrameHeader, Kind, padded};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a search for the next frame reads at a time; a multiple of [`ALIGNMENT`].
const SEARCH_BYTES: usize = 1 << 18;

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

    /// Opens `path` although its header may be damaged, as long as frames can be told to be its own: what they need of
    /// the header is the identity alone.
    ///
    /// # Errors
    /// As [`Input::of`].
    pub fn open_damaged(path: &Path) -> Result<Self> {
        let error = match Self::open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign) => error,
            opened => return opened,
        };
        let Ok(file) = File::open(path) else { return Err(error) };
        let mut bytes = [0; FileHeader::BYTES];
        if Source::read_exact_at(&file, &mut bytes, 0).is_err() {
            return Err(error);
        }
        let input = Self::new(file, path, FileHeader::unchecked(&bytes));
        let first = input.frame_header(FileHeader::BYTES as u64, input.length()?);
        if first.is_ok() { Ok(input) } else { Err(error) }
    }

    /// Reads the header of an open file; `path` names it in errors.
    ///
    /// # Errors
    /// Foreign, where this is no trace; Damaged or Unsupported, as the header says; Environment.
    pub fn of(source: impl Source + 'static, path: &Path) -> Result<Self> {
        let length = source.length().map_err(|cause| match cause.kind() {
            io::ErrorKind::IsADirectory => {
                Error::new(ErrorKind::Foreign, "this is a folder, not a trace").in_file(path)
            }
            _ => Error::io("read", path, cause),
        })?;
        let mut bytes = [0; FileHeader::BYTES];
        let found = length.min(FileHeader::BYTES as u64) as usize;
        source.read_exact_at(&mut bytes[..found], 0).map_err(|cause| Error::io("read", path, cause))?;
        let header = FileHeader::decode(&bytes[..found]).map_err(|error| error.in_file(path))?;
        Ok(Self::new(source, path, header))
    }

    fn new(source: impl Source + 'static, path: &Path, header: FileHeader) -> Self {
        Input {
            source: Box::new(source),
            path: path.to_path_buf(),
            header,
            payload_bytes: AtomicU64::new(0),
            other_bytes: AtomicU64::new(FileHeader::BYTES as u64),
        }
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
        self.body_in(header, AlignedVec::new())
    }

    /// Like [`Input::body`], in the memory of `stored` where the body is not compressed; fresh memory costs more than
    /// the checks.
    pub(super) fn body_in(&self, header: &FrameHeader, mut stored: AlignedVec<64>) -> Result<AlignedVec<64>> {
        let place = |error: Error| error.at(header.offset).in_file(&self.path);
        let counter = if header.kind == Kind::Payload { &self.payload_bytes } else { &self.other_bytes };
        stored.resize(padded(u64::from(header.stored_length)) as usize, 0);
        self.read(&mut stored, header.offset + FrameHeader::BYTES as u64, counter)?;
        header.check_body(&stored).map_err(place)?;
        stored.resize(header.stored_length as usize, 0);
        if !header.is_compressed() {
            return Ok(stored);
        }
        codec::check_expansion(&stored, header.raw_length as usize, MAX_BODY_EXPANSION).map_err(place)?;
        let mut body = AlignedVec::new();
        body.resize(header.raw_length as usize, 0);
        codec::decompress_exact(&stored, &mut body).map_err(place)?;
        Ok(body)
    }

    /// The first place from `offset` (a multiple of [`ALIGNMENT`]) on where the word stands that begins a frame, or
    /// `length`. Read in large pieces: a long hole takes no longer than its bytes.
    pub fn find_frame(&self, offset: u64, length: u64) -> Result<u64> {
        let mut piece = vec![0; SEARCH_BYTES];
        let mut start = offset;
        while start < length {
            let bytes = (length - start).min(SEARCH_BYTES as u64) as usize;
            self.read(&mut piece[..bytes], start, &self.other_bytes)?;
            let found = piece[..bytes].chunks(ALIGNMENT).position(FrameHeader::may_begin);
            if let Some(block) = found {
                return Ok(start + (block * ALIGNMENT) as u64);
            }
            start += bytes as u64;
        }
        Ok(length)
    }

    /// Whether the `rest` bytes at the end of the file, too few for a header, could be the beginning of one.
    pub fn begins_frame(&self, offset: u64, rest: usize) -> Result<bool> {
        let mut bytes = [0; FrameHeader::BYTES];
        let bytes = bytes.get_mut(..rest).unwrap_or_default();
        self.read(bytes, offset, &self.other_bytes)?;
        Ok(FrameHeader::may_begin(bytes))
    }

    fn read(&self, bytes: &mut [u8], offset: u64, counter: &AtomicU64) -> Result<()> {
        self.source.read_exact_at(bytes, offset).map_err(|cause| match cause.kind() {
            // The next writer may cut what a killed one left behind the last whole frame.
            io::ErrorKind::UnexpectedEof => Error::damaged("the file ends here by now").at(offset).in_file(&self.path),
            _ => Error::io("read", &self.path, cause).at(offset),
        })?;
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
