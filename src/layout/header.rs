//! The first 64 bytes of a trace file.

use crate::error::{Error, ErrorKind, Result};

/// Begins every trace: a byte that is no text, CR LF against line-ending conversion, and the DOS end of file.
const MAGIC: [u8; 8] = *b"\xABactr\r\n\x1A";

/// Layout version of headers and frames.
const LAYOUT: u16 = 1;

/// Identity of a file. Frames carry its uuid in their checksum, so a frame of another file is no frame here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Random identity.
    pub uuid: [u8; 16],
    /// Creation, in microseconds since 1970-01-01 UTC.
    pub created_us: i64,
}

impl FileHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 64;

    /// The header's bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&LAYOUT.to_le_bytes());
        // 12..16 incompatible and 16..20 compatible feature bits: none so far.
        bytes[20..36].copy_from_slice(&self.uuid);
        bytes[40..48].copy_from_slice(&self.created_us.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Foreign, where the bytes are not those of a trace; Damaged, where they were; Unsupported, where a newer
    /// version wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let foreign = || Error::new(ErrorKind::Foreign, "this is no actrace file");
        let bytes: &[u8; Self::BYTES] = bytes.first_chunk().ok_or_else(foreign)?;
        if bytes[0..8] != MAGIC {
            return Err(foreign());
        }
        if crc32c::crc32c(&bytes[..60]).to_le_bytes() != bytes[60..64] {
            return Err(Error::damaged("the file header's checksum does not match").at(0));
        }
        let (layout, incompatible) = (u16_at(bytes, 8), u32_at(bytes, 12));
        if layout != LAYOUT || incompatible != 0 {
            return Err(Error::unsupported(format!(
                "layout {layout} with features {incompatible:#x} is newer than this version reads (layout {LAYOUT}): use the version that wrote it, or a later one"
            )));
        }
        Ok(Self::unchecked(bytes))
    }

    /// What the bytes say where they are a header's.
    pub(crate) fn unchecked(bytes: &[u8; Self::BYTES]) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[20..36]);
        FileHeader { uuid, created_us: u64_at(bytes, 40) as i64 }
    }
}

/// Little-endian number at `at` of a fixed block.
pub(super) fn u16_at(bytes: &[u8; 64], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Little-endian number at `at` of a fixed block.
pub(super) fn u32_at(bytes: &[u8; 64], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Little-endian number at `at` of a fixed block.
pub(super) fn u64_at(bytes: &[u8; 64], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader = FileHeader { uuid: [7; 16], created_us: -3 };

    #[test]
    fn comes_back() {
        assert_eq!(FileHeader::decode(&HEADER.encode()).unwrap(), HEADER);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..FileHeader::BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_foreign_and_a_newer_layout_unsupported() {
        assert_eq!(FileHeader::decode(b"GGUF").unwrap_err().kind(), ErrorKind::Foreign);
        let mut newer = HEADER.encode();
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::decode(&newer).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
