//! A frame: 64 plain bytes that say what follows, then the body, padded with zeros to 64.

use super::header::{u16_at, u32_at, u64_at};
use super::{MAX_BODY_BYTES, padded};
use crate::error::{Error, Result};

/// Kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Identity of a run, at its start.
    Run,
    /// Expected capture points of a run.
    Plan,
    /// Statistics of token rows.
    Stats,
    /// Values of token rows.
    Payload,
    /// Commit mark of a step.
    Step,
    /// What was captured of what was expected.
    Coverage,
    /// Something was dropped.
    Loss,
    /// End of a run.
    End,
    /// Durability mark.
    Sync,
    /// Directory of frames that are not payloads.
    Index,
    /// Directory of payload frames.
    PayloadIndex,
    /// Everything before is complete.
    Seal,
    /// A weight of the model.
    Weight,
    /// A kind that this version does not know: skipped unless marked critical.
    Other(u16),
}

const KINDS: [(Kind, u16, &str); 13] = [
    (Kind::Run, 1, "run"),
    (Kind::Plan, 2, "plan"),
    (Kind::Stats, 3, "stats"),
    (Kind::Payload, 4, "payload"),
    (Kind::Step, 5, "step"),
    (Kind::Coverage, 6, "coverage"),
    (Kind::Loss, 7, "loss"),
    (Kind::End, 8, "end"),
    (Kind::Sync, 9, "sync"),
    (Kind::Index, 10, "index"),
    (Kind::PayloadIndex, 11, "payload_index"),
    (Kind::Seal, 12, "seal"),
    (Kind::Weight, 13, "weight"),
];

impl Kind {
    /// The number in the file.
    pub fn code(self) -> u16 {
        match self {
            Kind::Other(code) => code,
            known => KINDS.iter().find(|(kind, ..)| *kind == known).map_or(0, |(_, code, _)| *code),
        }
    }

    /// The kind with number `code`.
    pub fn from_code(code: u16) -> Self {
        KINDS.iter().find(|(_, known, _)| *known == code).map_or(Kind::Other(code), |(kind, ..)| *kind)
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("unknown", |(.., name)| name)
    }
}

/// Run number of frames that belong to the file itself.
pub const NO_RUN: u32 = u32::MAX;

/// Body stored as it is.
pub(crate) const BODY_RAW: u8 = 0;
/// Body stored as one zstd frame.
pub(crate) const BODY_ZSTD: u8 = 1;

const SYNC_WORD: [u8; 4] = *b"\xF7trc";
const CRITICAL: u8 = 1;

/// What the 64 bytes before a body say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Kind of the record.
    pub kind: Kind,
    /// Version of the record.
    pub version: u16,
    /// Number in the file, from 0 without a gap.
    pub seq: u64,
    /// Where the frame stands in the file.
    pub offset: u64,
    /// Bytes of the body as stored.
    pub stored_length: u32,
    /// Bytes of the body when decompressed.
    pub raw_length: u32,
    /// Run in the file, or [`NO_RUN`].
    pub run: u32,
    /// Step of the run; 0 where the kind has none.
    pub step: u32,
    /// 0 raw, 1 zstd.
    pub codec: u8,
    /// A reader that does not know the kind must stop.
    pub critical: bool,
    /// Payload number; 0 for other kinds.
    pub payload: u64,
    /// crc32c of the stored body and its padding.
    pub body_crc: u32,
}

impl FrameHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 64;

    /// Whether the body is stored as one zstd frame.
    pub fn is_compressed(&self) -> bool {
        self.codec == BODY_ZSTD
    }

    /// Where the next frame begins.
    pub fn end(&self) -> u64 {
        self.offset + Self::BYTES as u64 + padded(u64::from(self.stored_length))
    }

    /// The header's bytes in the file `uuid`.
    pub fn encode(&self, uuid: &[u8; 16]) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&SYNC_WORD);
        bytes[4..6].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.stored_length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.raw_length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.run.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.step.to_le_bytes());
        bytes[40] = self.codec;
        bytes[41] = if self.critical { CRITICAL } else { 0 };
        bytes[48..56].copy_from_slice(&self.payload.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = header_crc(uuid, &bytes);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that should stand at `offset` of the file `uuid`.
    ///
    /// # Errors
    /// Damaged: no sync word, a wrong checksum (which covers the file's uuid), another place's frame, a length above
    /// the cap, an unknown codec.
    pub fn decode(bytes: &[u8; Self::BYTES], uuid: &[u8; 16], offset: u64) -> Result<Self> {
        if bytes[0..4] != SYNC_WORD {
            return Err(Error::damaged("no frame begins here").at(offset));
        }
        if header_crc(uuid, bytes).to_le_bytes() != bytes[60..64] {
            return Err(Error::damaged("a frame header's checksum does not match").at(offset));
        }
        let header = FrameHeader {
            kind: Kind::from_code(u16_at(bytes, 4)),
            version: u16_at(bytes, 6),
            seq: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            stored_length: u32_at(bytes, 24),
            raw_length: u32_at(bytes, 28),
            run: u32_at(bytes, 32),
            step: u32_at(bytes, 36),
            codec: bytes[40],
            critical: bytes[41] & CRITICAL != 0,
            payload: u64_at(bytes, 48),
            body_crc: u32_at(bytes, 56),
        };
        let fault = if header.offset != offset {
            Some("a frame stands at another place than it was written to")
        } else if bytes[41] & !CRITICAL != 0 || bytes[42..48] != [0; 6] {
            Some("a frame header's reserved bytes are not zero")
        } else if header.stored_length > MAX_BODY_BYTES || header.raw_length > MAX_BODY_BYTES {
            Some("a frame states a length above the cap")
        } else if header.codec > BODY_ZSTD {
            Some("a frame's codec is unknown")
        } else if header.codec == BODY_RAW && header.stored_length != header.raw_length {
            Some("a raw frame's lengths differ")
        } else {
            None
        };
        fault.map_or(Ok(header), |fault| Err(Error::damaged(fault).at(offset)))
    }

    /// Whether `bytes`, 64 of them or as many as the file has left, could begin a header: the sync word as far as it
    /// goes.
    pub fn may_begin(bytes: &[u8]) -> bool {
        bytes.iter().zip(SYNC_WORD).all(|(byte, expected)| *byte == expected)
    }

    /// Checks a stored body with its padding: the checksum, and that the padding is zero.
    ///
    /// # Errors
    /// Damaged.
    pub fn check_body(&self, stored_padded: &[u8]) -> Result<()> {
        let padding = stored_padded.get(self.stored_length as usize..);
        if stored_padded.len() as u64 != padded(u64::from(self.stored_length)) {
            return Err(Error::damaged("a frame's body is cut short").at(self.offset));
        }
        if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Err(Error::damaged("bytes hide in a frame's padding").at(self.offset));
        }
        if crc32c::crc32c(stored_padded) != self.body_crc {
            return Err(Error::damaged(format!(
                "the body of frame {} ({}) does not match its checksum",
                self.seq,
                self.kind.name()
            ))
            .at(self.offset));
        }
        Ok(())
    }
}

/// crc32c over the uuid and the header up to its own checksum.
fn header_crc(uuid: &[u8; 16], bytes: &[u8; 64]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(uuid), &bytes[..60])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] = [9; 16];

    fn header() -> FrameHeader {
        FrameHeader {
            kind: Kind::Stats,
            version: 1,
            seq: 5,
            offset: 128,
            stored_length: 70,
            raw_length: 90,
            run: 2,
            step: 3,
            codec: BODY_ZSTD,
            critical: true,
            payload: 0,
            body_crc: 17,
        }
    }

    #[test]
    fn comes_back_and_knows_its_end() {
        assert_eq!(FrameHeader::decode(&header().encode(&UUID), &UUID, 128).unwrap(), header());
        assert_eq!(header().end(), 128 + 64 + 128);
    }

    #[test]
    fn every_flipped_bit_another_place_and_another_file_are_noticed() {
        for bit in 0..512 {
            let mut bytes = header().encode(&UUID);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes, &UUID, 128).is_err(), "bit {bit}");
        }
        assert!(FrameHeader::decode(&header().encode(&UUID), &UUID, 192).is_err());
        assert!(FrameHeader::decode(&header().encode(&UUID), &[8; 16], 128).is_err());
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for (kind, code, name) in KINDS {
            assert_eq!((kind.code(), Kind::from_code(code), kind.name()), (code, kind, name));
        }
        assert_eq!(Kind::from_code(99), Kind::Other(99));
    }
}
