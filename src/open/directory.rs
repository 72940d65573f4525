//! Which frames a file holds: from its index where a seal ends it, else by walking from frame to frame.

use super::input::Input;
use super::walk::{State, Stretch, Walk};
use crate::ErrorKind;
use crate::error::{Error, Result};
use crate::file::{FileHeader, FrameHeader, Kind, NO_RUN, Span, seal_root};
use crate::record::{IndexV1, PayloadIndexV1, Record, SEAL_BYTES, SealV1, StatsV1, SyncV1};

/// One frame of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Sequence number.
    pub seq: u64,
    /// Kind.
    pub kind: Kind,
    /// Record version.
    pub version: u16,
    /// Where it begins in the file.
    pub offset: u64,
    /// Stored body length.
    pub stored_length: u32,
    /// Raw body length.
    pub raw_length: u32,
    /// Run number in the file; `None` for frames of the file itself (index, seal).
    pub run: Option<u32>,
    /// Step; 0 where the kind has none.
    pub step: u32,
    /// Statistics: rows, and the closed ranges of sites and positions that they cover.
    pub rows: u32,
    /// Sites, first and last.
    pub sites: (u32, u32),
    /// Positions, first and last.
    pub positions: (u32, u32),
}

impl FrameEntry {
    /// The entry of a frame whose header was read.
    pub fn new(header: &FrameHeader, span: Span) -> Self {
        FrameEntry {
            seq: header.seq,
            kind: header.kind,
            version: header.version,
            offset: header.offset,
            stored_length: header.stored_length,
            raw_length: header.raw_length,
            run: (header.run != NO_RUN).then_some(header.run),
            step: header.step,
            rows: span.rows,
            sites: span.sites,
            positions: span.positions,
        }
    }
}

/// The frames of a file that are not payloads, and how to find those that are.
#[derive(Debug)]
pub struct Directory {
    /// What the file is.
    pub state: State,
    /// Frames in order, without payloads.
    pub frames: Vec<FrameEntry>,
    /// Payload frames that no index lists, in order (torn files).
    pub loose_payloads: Vec<FrameHeader>,
    /// Offset of each payload index.
    pub payload_indexes: Vec<u64>,
    /// Offset and chain hash of the last index.
    pub last_index: (u64, [u8; 32]),
    /// End of the last whole frame.
    pub end: u64,
    /// Number of the next frame.
    pub next_seq: u64,
    /// Stretches that hold no whole frame, but for a frame that the file ends in.
    pub holes: Vec<(u64, u64)>,
    /// Everything before this was once handed to stable storage, as far as the marks in the file tell.
    pub durable_to: u64,
}

impl Directory {
    /// Reads the directory of `input`: from the index where a seal ends the file and both are right, else by walking.
    /// A walk checks every body but those of payloads, which are checked when they are read.
    pub fn read(input: &Input) -> Result<Self> {
        let length = input.length()?;
        let Some((header, seal)) = seal_at_end(input, length)? else {
            let walked = Self::walked(input, length, u64::MAX);
            // The next writer of a torn file may have cut the beginning of a frame off its end, and gone on there.
            let now = input.length()?;
            let stands = match &walked {
                Ok(directory) => {
                    let hole = directory.holes.first();
                    now >= length && !hole.is_some_and(|(start, _)| is_whole_frame(input, *start, now))
                }
                Err(error) => error.kind() != ErrorKind::Damaged,
            };
            return if stands { walked } else { Self::walked(input, now, u64::MAX) };
        };
        match Self::indexed(input, length, &header, &seal) {
            Err(error) if error.kind() == ErrorKind::Damaged => Self::damaged(input),
            read => read,
        }
    }

    /// What is whole in a file that is known to be damaged.
    pub fn damaged(input: &Input) -> Result<Self> {
        Ok(Directory { state: State::Damaged, ..Self::walked(input, input.length()?, u64::MAX)? })
    }

    fn indexed(input: &Input, length: u64, seal_header: &FrameHeader, seal: &SealV1) -> Result<Self> {
        let chain = index_chain(input, length, seal.index)?;
        let last_chain = chain.last().map_or([0; 32], |(.., chain)| *chain);
        if (seal_header.seq, seal.root) != (seal.frames, seal_root(input.header(), &last_chain, seal.frames)) {
            return Err(Error::damaged("the seal does not match the index")
                .at(seal_header.offset)
                .in_file(input.path()));
        }
        let mut frames = Vec::new();
        let mut payload_indexes = Vec::new();
        for (header, index, _) in &chain {
            frames.extend((0..index.seq.len()).map(|row| listed(index, row)));
            frames.push(FrameEntry::new(header, Span::default()));
            if index.payload_index != 0 {
                payload_indexes.push(index.payload_index);
            }
        }
        frames.push(FrameEntry::new(seal_header, Span::default()));
        Ok(Directory {
            state: State::Sealed,
            frames,
            loose_payloads: Vec::new(),
            payload_indexes,
            last_index: (seal.index, last_chain),
            end: length,
            next_seq: seal_header.seq.saturating_add(1),
            holes: Vec::new(),
            durable_to: seal_header.offset,
        })
    }

    /// Walks the first `length` bytes of `input`; payloads from byte `payloads_from` on are read and checked too.
    ///
    /// # Errors
    /// Damaged, where the file has become shorter than `length`; Environment.
    pub fn walked(input: &Input, length: u64, payloads_from: u64) -> Result<Self> {
        let start = FileHeader::BYTES as u64;
        let mut directory = Directory {
            state: State::Torn,
            frames: Vec::new(),
            loose_payloads: Vec::new(),
            payload_indexes: Vec::new(),
            last_index: (0, [0; 32]),
            end: start,
            next_seq: 0,
            holes: Vec::new(),
            durable_to: start,
        };
        let mut misnumbered = false;
        for stretch in Walk::new(input, length) {
            let header = match stretch? {
                Stretch::Frame(header) => header,
                Stretch::Hole(start, end) => {
                    directory.holes.push((start, end));
                    continue;
                }
                Stretch::Cut(_) => break,
            };
            let adjacent = header.offset == directory.end;
            match directory.take(input, &header, payloads_from) {
                Ok(()) => {
                    misnumbered |=
                        if adjacent { header.seq != directory.next_seq } else { header.seq < directory.next_seq };
                    directory.end = header.end();
                    directory.next_seq = header.seq.saturating_add(1);
                }
                Err(error) if error.kind() == ErrorKind::Damaged => directory.holes.push((header.offset, header.end())),
                Err(error) => return Err(error),
            }
        }
        directory.state = match misnumbered {
            true => State::Damaged,
            false => State::of_unsealed(directory.holes.iter().map(|hole| hole.0), directory.durable_to),
        };
        Ok(directory)
    }

    /// Enters a frame whose body is right.
    fn take(&mut self, input: &Input, header: &FrameHeader, payloads_from: u64) -> Result<()> {
        if header.kind == Kind::Payload {
            if matches!(header.payload, 0 | u64::MAX) {
                return Err(Error::damaged("a payload's number is out of range").at(header.offset));
            }
            if header.offset >= payloads_from {
                input.body(header)?;
            }
            self.loose_payloads.push(*header);
            return Ok(());
        }
        let body = input.body(header)?;
        let mut span = Span::default();
        match header.kind {
            Kind::Stats => span = Span::of(&StatsV1::decode(&body)?),
            Kind::PayloadIndex => {
                let index = PayloadIndexV1::decode(&body)?;
                let listed = index.first_payload..index.next_payload();
                self.loose_payloads.retain(|payload| !listed.contains(&payload.payload));
                self.payload_indexes.push(header.offset);
            }
            Kind::Index => self.last_index = (header.offset, *blake3::hash(&body).as_bytes()),
            // A mark that claims more than what stands before it is none.
            Kind::Sync => self.durable_to = self.durable_to.max(SyncV1::decode(&body)?.durable_to.min(header.offset)),
            Kind::Seal => self.durable_to = self.durable_to.max(header.offset),
            _ => {}
        }
        self.frames.push(FrameEntry::new(header, span));
        Ok(())
    }
}

/// Whether a whole frame begins at `offset` of the file, which has `length` bytes.
fn is_whole_frame(input: &Input, offset: u64, length: u64) -> bool {
    input.frame_header(offset, length).and_then(|header| input.body(&header)).is_ok()
}

/// The seal that ends the file, if one does.
fn seal_at_end(input: &Input, length: u64) -> Result<Option<(FrameHeader, SealV1)>> {
    let size = FrameHeader::BYTES as u64 + crate::file::padded(SEAL_BYTES as u64);
    let Some(offset) = length.checked_sub(size).filter(|offset| *offset >= FileHeader::BYTES as u64) else {
        return Ok(None);
    };
    let Ok(header) = input.frame_header(offset, length) else {
        return Ok(None);
    };
    if header.kind != Kind::Seal || header.end() != length {
        return Ok(None);
    }
    match input.body(&header).and_then(|body| SealV1::decode(&body)) {
        Ok(seal) => Ok(Some((header, seal))),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
        Err(error) => Err(error),
    }
}

/// The index frames from the first to the one at `last`, each with the hash of its body.
fn index_chain(input: &Input, length: u64, last: u64) -> Result<Vec<(FrameHeader, IndexV1, [u8; 32])>> {
    let mut chain = Vec::new();
    let mut expected: Option<[u8; 32]> = None;
    let mut offset = last;
    while offset != 0 {
        let place = |error: Error| error.at(offset).in_file(input.path());
        let header = input.frame_header(offset, length)?;
        if header.kind != Kind::Index {
            return Err(place(Error::damaged("the index chain leads to another frame")));
        }
        let body = input.body(&header)?;
        let hash = *blake3::hash(&body).as_bytes();
        if expected.is_some_and(|expected| expected != hash) {
            return Err(place(Error::damaged("the index chain is broken")));
        }
        let index = IndexV1::decode(&body).map_err(place)?;
        if index.previous >= offset {
            return Err(place(Error::damaged("the index chain does not lead back")));
        }
        if !lists_its_stretch(&index, offset) {
            return Err(place(Error::damaged("an index lists frames outside its stretch of the file")));
        }
        (offset, expected) = (index.previous, Some(index.previous_chain));
        chain.push((header, index, hash));
    }
    chain.reverse();
    Ok(chain)
}

/// Whether everything that the index at `offset` names lies behind the previous index and before itself.
fn lists_its_stretch(index: &IndexV1, offset: u64) -> bool {
    let inside = |place: &u64| index.previous < *place && *place < offset;
    let payloads = index.payload_index == 0 || inside(&index.payload_index);
    payloads && index.offset.first().is_none_or(inside) && index.offset.last().is_none_or(inside)
}

/// The frame in row `row` of an index.
pub(super) fn listed(index: &IndexV1, row: usize) -> FrameEntry {
    FrameEntry {
        seq: index.seq[row],
        kind: Kind::from_code(index.kind[row]),
        version: index.version[row],
        offset: index.offset[row],
        stored_length: index.stored_length[row],
        raw_length: index.raw_length[row],
        run: (index.run[row] != NO_RUN).then_some(index.run[row]),
        step: index.step[row],
        rows: index.rows[row],
        sites: (index.first_site[row], index.last_site[row]),
        positions: (index.first_position[row], index.last_position[row]),
    }
}

/// The payload frames that an index lists.
pub(super) fn listed_payloads(index: &PayloadIndexV1) -> impl Iterator<Item = FrameEntry> + '_ {
    (0..index.seq.len()).map(|row| FrameEntry {
        seq: index.seq[row],
        kind: Kind::Payload,
        version: crate::record::VERSION,
        offset: index.offset[row],
        stored_length: index.stored_length[row],
        raw_length: index.raw_length[row],
        run: Some(index.run[row]),
        step: index.step[row],
        rows: 0,
        sites: (0, 0),
        positions: (0, 0),
    })
}
