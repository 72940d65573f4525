//! Which frames a file holds: from its index where a seal ends it, else by walking from frame to frame.

use super::input::Input;
use crate::error::{Error, Result};
use crate::file::{FileHeader, FrameHeader, Kind, NO_RUN, Span, seal_root};
use crate::record::{IndexV1, PayloadIndexV1, Record, SEAL_BYTES, SealV1, StatsV1};

/// What opening found out about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Complete: a seal ends it.
    Sealed,
    /// No seal at the end: a writer is at work, or was killed. Every whole frame is readable.
    Torn,
    /// Bytes between whole frames are not what was written.
    Damaged,
}

impl State {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            State::Sealed => "sealed",
            State::Torn => "torn",
            State::Damaged => "damaged",
        }
    }
}

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
    /// Stretches that hold no frame between whole frames.
    pub gaps: Vec<(u64, u64)>,
}

impl Directory {
    /// Reads the directory of `input`.
    pub fn read(input: &Input) -> Result<Self> {
        let length = input.length()?;
        match seal_at_end(input, length)? {
            Some((header, seal)) => Self::indexed(input, length, &header, &seal),
            None => Self::walked(input, length),
        }
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
            next_seq: after(seal_header)?,
            gaps: Vec::new(),
        })
    }

    fn walked(input: &Input, length: u64) -> Result<Self> {
        let mut directory = Directory {
            state: State::Torn,
            frames: Vec::new(),
            loose_payloads: Vec::new(),
            payload_indexes: Vec::new(),
            last_index: (0, [0; 32]),
            end: FileHeader::BYTES as u64,
            next_seq: 0,
            gaps: Vec::new(),
        };
        for found in Walk::new(input, length) {
            let header = found?;
            if header.offset != directory.end {
                directory.gaps.push((directory.end, header.offset));
                directory.state = State::Damaged;
            }
            directory.take(input, &header)?;
        }
        Ok(directory)
    }

    fn take(&mut self, input: &Input, header: &FrameHeader) -> Result<()> {
        self.end = header.end();
        self.next_seq = after(header)?;
        match header.kind {
            Kind::Payload => {
                self.loose_payloads.push(*header);
                return Ok(());
            }
            Kind::PayloadIndex => {
                self.payload_indexes.push(header.offset);
                self.loose_payloads.clear();
            }
            Kind::Index => self.last_index = (header.offset, *blake3::hash(&input.body(header)?).as_bytes()),
            _ => {}
        }
        let span = match header.kind {
            Kind::Stats => Span::of(&StatsV1::decode(&input.body(header)?).map_err(|e| e.at(header.offset))?),
            _ => Span::default(),
        };
        self.frames.push(FrameEntry::new(header, span));
        Ok(())
    }
}

/// The number of the frame behind `header`.
fn after(header: &FrameHeader) -> Result<u64> {
    header.seq.checked_add(1).ok_or_else(|| Error::damaged("frame numbers are used up").at(header.offset))
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
    let seal = SealV1::decode(&input.body(&header)?).map_err(|error| error.at(offset).in_file(input.path()))?;
    Ok(Some((header, seal)))
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

/// Whole frames from the first on. Where none begins, the next 64-byte boundary is tried.
pub struct Walk<'a> {
    input: &'a Input,
    offset: u64,
    length: u64,
}

impl<'a> Walk<'a> {
    /// Walks the first `length` bytes of `input`.
    pub fn new(input: &'a Input, length: u64) -> Self {
        Walk { input, offset: FileHeader::BYTES as u64, length }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<FrameHeader>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.length {
            match self.input.frame_header(self.offset, self.length) {
                Ok(header) => {
                    self.offset = header.end();
                    return Some(Ok(header));
                }
                Err(error) if error.kind() == crate::ErrorKind::Damaged => {
                    self.offset += crate::file::ALIGNMENT as u64;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// Where each payload lies, by number.
#[derive(Debug, Default)]
pub struct PayloadDirectory {
    /// Stretches of consecutive numbers, ascending.
    stretches: Vec<PayloadIndexV1>,
}

impl PayloadDirectory {
    /// Reads the payload indexes of a file.
    pub fn read(input: &Input, directory: &Directory) -> Result<Self> {
        let length = input.length()?;
        let mut stretches = Vec::new();
        for &offset in &directory.payload_indexes {
            let header = input.frame_header(offset, length)?;
            if header.kind != Kind::PayloadIndex {
                return Err(Error::damaged("an index names another frame as its payload index")
                    .at(offset)
                    .in_file(input.path()));
            }
            let index = PayloadIndexV1::decode(&input.body(&header)?);
            stretches.push(index.map_err(|error| error.at(offset).in_file(input.path()))?);
        }
        let loose = loose(input, &directory.loose_payloads)?;
        if !loose.seq.is_empty() {
            stretches.push(loose);
        }
        stretches.sort_by_key(|stretch| stretch.first_payload);
        Ok(PayloadDirectory { stretches })
    }

    /// Where payload `number` begins, or `None` where the file has no such payload.
    pub fn offset(&self, number: u64) -> Option<u64> {
        let after = self.stretches.partition_point(|stretch| stretch.first_payload <= number);
        let stretch = self.stretches.get(after.checked_sub(1)?)?;
        let row = usize::try_from(number - stretch.first_payload).ok()?;
        stretch.offset.get(row).copied()
    }

    /// The highest payload number, 0 where there is none.
    pub fn last(&self) -> u64 {
        self.stretches.last().map_or(0, |stretch| stretch.first_payload + stretch.seq.len() as u64 - 1)
    }

    /// Content hash and number of every payload, oldest first.
    pub fn hashes(&self) -> impl Iterator<Item = ([u8; 32], u64)> + '_ {
        self.stretches.iter().flat_map(|stretch| {
            stretch.blake3.as_chunks::<32>().0.iter().zip(stretch.first_payload..).map(|(hash, number)| (*hash, number))
        })
    }

    /// Entries of all payload frames for the log.
    pub fn entries(&self) -> impl Iterator<Item = FrameEntry> + '_ {
        self.stretches.iter().flat_map(listed_payloads)
    }

    /// The stretch behind the last index.
    pub fn loose(input: &Input, directory: &Directory) -> Result<PayloadIndexV1> {
        loose(input, &directory.loose_payloads)
    }
}

/// The directory of payloads that no index lists: their hashes are read from the frames.
fn loose(input: &Input, headers: &[FrameHeader]) -> Result<PayloadIndexV1> {
    let mut index = PayloadIndexV1 {
        first_payload: headers.first().map_or(0, |header| header.payload),
        ..PayloadIndexV1::default()
    };
    for header in headers {
        let expected = index.first_payload.checked_add(index.seq.len() as u64);
        if header.payload == 0 || Some(header.payload) != expected || header.payload == u64::MAX {
            return Err(Error::damaged("payload numbers have a gap").at(header.offset).in_file(input.path()));
        }
        let body = input.body(header)?;
        let payload = crate::record::access::<crate::record::ArchivedPayloadV1>(&body)
            .map_err(|error| error.at(header.offset).in_file(input.path()))?;
        index.seq.push(header.seq);
        index.offset.push(header.offset);
        index.stored_length.push(header.stored_length);
        index.raw_length.push(header.raw_length);
        index.run.push(header.run);
        index.step.push(header.step);
        index.blake3.extend_from_slice(&payload.blake3);
    }
    Ok(index)
}
