//! .apr version 2 of the `apr` tool: header, JSON metadata, tensor index, tensor data, checksum; all little-endian.
//!
//! The format was learned from files that apr 0.72.3 wrote. Every length and offset is checked against the file before
//! anything behind it is read.

mod dtype;
mod header;
mod index;
mod metadata;
mod vocabulary;

use super::Bytes;
use super::stored::Tensors;
use crate::error::{Error, Result};
use header::Header;
pub(super) use metadata::Metadata;
use rayon::prelude::*;

/// What every .apr file begins with; the byte behind it tells the versions apart.
pub(super) const MAGIC: &[u8; 3] = b"APR";

/// Each section begins and ends on a multiple of this.
const ALIGNMENT: usize = 64;

/// Bytes whose checksum is taken by one thread.
const CHECKED_AT_ONCE: usize = 1 << 22;

/// Reads the metadata of a file, and adds its tensors to `tensors` as those of file `file`.
///
/// # Errors
/// Malformed for what breaks the format or its checksums, with its offset; unsupported for other versions, flags and
/// element types that are not built.
pub(super) fn read(bytes: &Bytes, file: usize, tensors: &mut Tensors) -> Result<Metadata> {
    let header = Header::read(bytes)?;
    let metadata = Metadata::parse(header.metadata(bytes)?, header.metadata_offset)?;
    let end = index::read(bytes, &header, file, tensors)?;
    check_footer(bytes, end)?;
    tensors.check_overlap()?;
    Ok(metadata)
}

/// Checks the sum over the whole file, its last four bytes. Some files end with their tensors, which end at `end`.
fn check_footer(bytes: &[u8], end: usize) -> Result<()> {
    let tail = bytes.get(end..).unwrap_or_default();
    let padded = bytes.len().is_multiple_of(ALIGNMENT) && tail.len() < ALIGNMENT && tail.iter().all(|byte| *byte == 0);
    if tail.is_empty() || padded {
        return Ok(());
    }
    let (summed, footer) = bytes
        .split_last_chunk::<4>()
        .filter(|_| tail.len() >= 4)
        .ok_or_else(|| Error::malformed("the file is cut short in its checksum").at(end as u64))?;
    check("whole file", u32::from_le_bytes(*footer), crc32(summed), summed.len() as u64)
}

/// Compares a stored checksum, which stands at `at`, with that of the bytes.
fn check(what: &str, stored: u32, found: u32, at: u64) -> Result<()> {
    if stored == found {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "the file is damaged: the checksum of the {what} is {stored:08x}, and its bytes have {found:08x}"
    ))
    .at(at))
}

/// CRC-32 as in zlib, on all cores.
fn crc32(bytes: &[u8]) -> u32 {
    let part = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        hasher
    };
    let join = |mut left: crc32fast::Hasher, right: crc32fast::Hasher| {
        left.combine(&right);
        left
    };
    bytes.par_chunks(CHECKED_AT_ONCE).map(part).reduce(crc32fast::Hasher::new, join).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the CRC catalogue, and parts that are joined in order.
    #[test]
    fn crc32_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        let long: Vec<u8> = (0..3 * CHECKED_AT_ONCE + 5).map(|i| (i * 31 % 251) as u8).collect();
        assert_eq!(crc32(&long), crc32fast::hash(&long));
    }
}
