//! The header: 64 bytes that say where the sections are.
//!
//! | offset | field |
//! |---|---|
//! | 0 | `APR\0`, or `APR2` |
//! | 4, 5 | version, 2 and 0 |
//! | 6 | u16 of flags |
//! | 8 | u32, tensors |
//! | 12, 20 | u64 offset and u32 length of the metadata |
//! | 24, 32 | u64 offsets of the index and of the data |
//! | 40 | u32 checksum of the other 60 bytes |
//! | 44 | 20 zero bytes |

use super::{check, crc32};
use crate::error::{Error, Result};
use crate::model::cursor::Cursor;

const LENGTH: usize = 64;

/// Where the checksum stands.
const CHECKSUM: usize = 40;

/// The longest metadata that are read. A vocabulary of 256 thousand tokens takes some 10 MB.
const LONGEST_METADATA: usize = 64 << 20;

/// Flags under which the bytes mean something else than is read here.
const REFUSED: [(u16, &str); 5] = [
    (0x1, "LZ4 compression"),
    (0x2, "zstd compression"),
    (0x4, "encryption"),
    (0x10, "several files"),
    (0x800, "column-major matrices"),
];

/// Flags that change nothing for a reader: signed, quantized, filterbank, card, streaming, vocabulary, row-major.
const PASSED: u16 = 0x8 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400;

pub(super) struct Header {
    pub tensors: u32,
    pub metadata_offset: u64,
    metadata_length: usize,
    /// Where the index begins and ends.
    pub index: (usize, usize),
    /// Where tensor data begin.
    pub data: usize,
}

impl Header {
    /// Reads the header of a file that begins with [`super::MAGIC`].
    ///
    /// # Errors
    /// Malformed for a wrong checksum and sections outside the file; unsupported for other versions and for flags that
    /// are not built.
    pub(super) fn read(bytes: &[u8]) -> Result<Header> {
        check_magic(bytes)?;
        let header = bytes.get(..LENGTH).ok_or_else(|| {
            Error::malformed(format!("the file is cut short: its {} bytes are no header of {LENGTH}", bytes.len()))
        })?;
        let mut cursor = Cursor::starting(header, 4);
        let version = (cursor.u8()?, cursor.u8()?);
        if version != (2, 0) {
            let (major, minor) = version;
            return Err(Error::unsupported(format!(".apr version {major}.{minor} is not supported, only 2.0")).at(4));
        }
        let flags = cursor.u16()?;
        let tensors = cursor.u32()?;
        let (metadata_offset, metadata_length) = (cursor.u64()?, cursor.u32()?);
        let (index, data) = (cursor.u64()?, cursor.u64()?);
        let stored = cursor.u32()?;
        let (before, after) = (header.get(..CHECKSUM), header.get(CHECKSUM + 4..));
        let summed = [before.unwrap_or_default(), after.unwrap_or_default()].concat();
        check("header", stored, crc32(&summed), CHECKSUM as u64)?;
        // After the checksum: a flipped bit is damage, and no feature.
        check_flags(flags)?;
        if after.is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            return Err(Error::unsupported("the reserved end of the header says something").at(CHECKSUM as u64 + 4));
        }
        let metadata_length = metadata_length as usize;
        let metadata_end = metadata_offset.checked_add(metadata_length as u64);
        let in_order = metadata_offset >= LENGTH as u64
            && metadata_end.is_some_and(|end| end <= index)
            && index <= data
            && data <= bytes.len() as u64;
        let place = |offset: u64| usize::try_from(offset).ok().filter(|_| in_order);
        let (Some(index), Some(data)) = (place(index), place(data)) else {
            return Err(Error::malformed(format!(
                "the sections do not follow each other inside the {} bytes of the file: metadata from {metadata_offset} of \
                 {metadata_length} bytes, index from {index}, data from {data}",
                bytes.len()
            ))
            .at(12));
        };
        Ok(Header { tensors, metadata_offset, metadata_length, index: (index, data), data })
    }

    /// The bytes of the JSON metadata.
    pub(super) fn metadata<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        if self.metadata_length > LONGEST_METADATA {
            return Err(Error::unsupported(format!("metadata of {} bytes are too long", self.metadata_length)).at(20));
        }
        let mut cursor = Cursor::starting(bytes, usize::try_from(self.metadata_offset).unwrap_or(usize::MAX));
        cursor.take(self.metadata_length)
    }
}

fn check_magic(bytes: &[u8]) -> Result<()> {
    match bytes.get(..4) {
        Some(b"APR\0" | b"APR2") => Ok(()),
        Some(b"APR1") => Err(Error::unsupported("version 1 of .apr is another format and is not supported, only 2.0")),
        Some(b"APRN") => Err(Error::unsupported("APRN files are another format and are not supported, only .apr 2.0")),
        Some(magic) => Err(Error::unsupported(format!(
            "a file that begins with \"{}\" is no known .apr model; only version 2.0 is supported",
            magic.escape_ascii()
        ))),
        None => Err(Error::malformed("the file is cut short in its first four bytes")),
    }
}

fn check_flags(flags: u16) -> Result<()> {
    if let Some((_, feature)) = REFUSED.iter().find(|(flag, _)| flags & flag != 0) {
        return Err(Error::unsupported(format!("{feature} (flags {flags:#x}) is not supported in .apr files")).at(6));
    }
    let refused = REFUSED.iter().fold(0, |all, (flag, _)| all | flag);
    let unknown = flags & !(refused | PASSED);
    if unknown != 0 {
        return Err(Error::unsupported(format!("the flags {unknown:#x} of .apr files are not known")).at(6));
    }
    Ok(())
}
