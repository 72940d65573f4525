//! Appends frames: numbers them, sums them, keeps the directory, seals.

use super::frame::{BODY_RAW, BODY_ZSTD};
use super::{ALIGNMENT, FileHeader, FrameHeader, Kind, MAX_BODY_BYTES, NO_RUN, Storage, padded};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{IndexV1, PayloadIndexV1, PayloadV1, Record, RunV1, SealV1, StatsV1, VERSION};
use rkyv::util::AlignedVec;
use std::collections::{HashMap, VecDeque};

/// Bytes between two index frames.
const INDEX_EVERY_BYTES: u64 = 64 << 20;
/// Frames between two index frames.
const INDEX_EVERY_FRAMES: usize = 1 << 16;
/// Payload hashes that are remembered, so that equal content is stored once: at most about 80 MB of memory.
const KNOWN_PAYLOADS: usize = 1 << 20;
/// Below this, a body is not worth compressing.
const COMPRESS_FROM: usize = 256;

/// Numbers of rows, sites and positions that a statistics frame covers, for pruning by the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Rows.
    pub rows: u32,
    /// Smallest and largest site.
    pub sites: (u32, u32),
    /// Smallest and largest position.
    pub positions: (u32, u32),
}

impl Span {
    /// The span of a statistics record.
    pub fn of(stats: &StatsV1) -> Self {
        let range =
            |column: &[u32]| (column.iter().min().copied().unwrap_or(0), column.iter().max().copied().unwrap_or(0));
        Span { rows: stats.site.len() as u32, sites: range(&stats.site), positions: range(&stats.position) }
    }
}

/// What a writer must know of the file that it goes on with; a new file's is [`Tail::empty`].
#[derive(Debug, Default)]
pub struct Tail {
    /// Where the next frame goes.
    pub end: u64,
    /// Number of the next frame.
    pub seq: u64,
    /// Number of the next payload, from 1.
    pub payload: u64,
    /// Runs in the file.
    pub runs: u32,
    /// Offset and chain hash of the last index; 0 and zeros where there is none.
    pub index: (u64, [u8; 32]),
    /// Frames behind the last index.
    pub unindexed: IndexV1,
    /// Payload frames behind the last index.
    pub unindexed_payloads: PayloadIndexV1,
    /// Content hashes of stored payloads, oldest first.
    pub known: Vec<([u8; 32], u64)>,
}

impl Tail {
    /// The tail of a file that holds its header only.
    pub fn empty() -> Self {
        Tail { end: FileHeader::BYTES as u64, payload: 1, ..Tail::default() }
    }
}

/// Writer of a trace file. A failed write poisons it: nothing is written afterwards and nothing pretends to be sealed.
pub struct Writer<S> {
    storage: S,
    uuid: [u8; 16],
    end: u64,
    seq: u64,
    payload: u64,
    runs: u32,
    index: (u64, [u8; 32]),
    indexed_to: u64,
    pending: IndexV1,
    pending_payloads: PayloadIndexV1,
    known: HashMap<[u8; 32], u64>,
    known_order: VecDeque<[u8; 32]>,
    scratch: AlignedVec,
    poison: Option<String>,
}

impl<S: Storage> Writer<S> {
    /// Writes the header of a new file.
    pub fn create(mut storage: S, header: FileHeader) -> Result<Self> {
        storage.append(&[&header.encode()]).map_err(|cause| Error::io("write", storage.path(), cause))?;
        Ok(Self::resume(storage, header, Tail::empty()))
    }

    /// Goes on behind `tail`; the storage appends at `tail.end`.
    pub fn resume(storage: S, header: FileHeader, tail: Tail) -> Self {
        let mut writer = Writer {
            storage,
            uuid: header.uuid,
            end: tail.end,
            seq: tail.seq,
            payload: tail.payload,
            runs: tail.runs,
            index: tail.index,
            indexed_to: tail.end,
            pending: tail.unindexed,
            pending_payloads: tail.unindexed_payloads,
            known: HashMap::new(),
            known_order: VecDeque::new(),
            scratch: AlignedVec::new(),
            poison: None,
        };
        for (hash, payload) in tail.known {
            writer.remember(hash, payload);
        }
        writer
    }

    /// Begins a run and gives its number in the file.
    pub fn begin_run(&mut self, run: &RunV1) -> Result<u32> {
        let ordinal = self.runs;
        self.runs += 1;
        self.record(ordinal, 0, run)?;
        Ok(ordinal)
    }

    /// Appends a record of run `run`.
    pub fn record<R: Record>(&mut self, run: u32, step: u32, record: &R) -> Result<()> {
        self.spanned(run, step, record, Span::default())
    }

    /// Appends a statistics record of run `run`.
    pub fn stats(&mut self, run: u32, stats: &StatsV1) -> Result<()> {
        self.spanned(run, stats.step, stats, Span::of(stats))
    }

    fn spanned<R: Record>(&mut self, run: u32, step: u32, record: &R, span: Span) -> Result<()> {
        let body = self.archive(record)?;
        let packed = if body.len() >= COMPRESS_FROM { crate::codec::compress_body(&body) } else { None };
        let header = match &packed {
            Some(packed) => self.append(R::KIND, run, step, 0, BODY_ZSTD, packed, body.len())?,
            None => self.append(R::KIND, run, step, 0, BODY_RAW, &body, body.len())?,
        };
        self.list(&header, blake3::hash(&body).as_bytes(), span);
        self.scratch = body;
        if self.end - self.indexed_to > INDEX_EVERY_BYTES || self.pending_frames() > INDEX_EVERY_FRAMES {
            self.write_index()?;
        }
        Ok(())
    }

    /// The number of a stored payload with this content.
    pub fn known_payload(&self, hash: &[u8; 32]) -> Option<u64> {
        self.known.get(hash).copied()
    }

    /// Content hashes of the stored payloads that are remembered.
    pub fn known_hashes(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.known.keys()
    }

    /// Appends a payload of run `run`, numbers it, and gives its number.
    pub fn payload(&mut self, run: u32, step: u32, mut payload: PayloadV1) -> Result<u64> {
        payload.payload = self.payload;
        let body = self.archive(&payload)?;
        let header = self.append(Kind::Payload, run, step, payload.payload, BODY_RAW, &body, body.len())?;
        self.scratch = body;
        let pending = &mut self.pending_payloads;
        if pending.seq.is_empty() {
            pending.first_payload = payload.payload;
        }
        pending.seq.push(header.seq);
        pending.offset.push(header.offset);
        pending.stored_length.push(header.stored_length);
        pending.raw_length.push(header.raw_length);
        pending.run.push(run);
        pending.blake3.extend_from_slice(&payload.blake3);
        self.remember(payload.blake3, payload.payload);
        self.payload += 1;
        Ok(payload.payload)
    }

    /// Writes the directory and the seal, and hands the file to stable storage.
    pub fn seal(&mut self) -> Result<()> {
        self.write_index()?;
        let seal = SealV1 {
            index: self.index.0,
            frames: self.seq,
            runs: self.runs,
            payloads: self.payload - 1,
            root: seal_root(&self.uuid, &self.index.1, self.seq),
        };
        let body = self.archive(&seal)?;
        let header = self.append(Kind::Seal, NO_RUN, 0, 0, BODY_RAW, &body, body.len())?;
        self.list(&header, blake3::hash(&body).as_bytes(), Span::default());
        self.scratch = body;
        self.sync()
    }

    /// Hands everything written so far to stable storage.
    pub fn sync(&mut self) -> Result<()> {
        let synced = self.storage.sync();
        self.poisoning(synced, "sync")
    }

    /// Where the bytes go.
    pub fn path(&self) -> &std::path::Path {
        self.storage.path()
    }

    /// Bytes of the file so far.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether the file holds no frame yet.
    pub fn is_empty(&self) -> bool {
        self.seq == 0
    }

    fn pending_frames(&self) -> usize {
        self.pending.seq.len() + self.pending_payloads.seq.len()
    }

    fn remember(&mut self, hash: [u8; 32], payload: u64) {
        if self.known.insert(hash, payload).is_none() {
            self.known_order.push_back(hash);
        }
        if self.known_order.len() > KNOWN_PAYLOADS
            && let Some(oldest) = self.known_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn write_index(&mut self) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let payloads = std::mem::take(&mut self.pending_payloads);
        if !payloads.seq.is_empty() {
            pending.payload_index = self.end;
            let body = self.archive(&payloads)?;
            let packed = crate::codec::compress_body(&body);
            let header = match &packed {
                Some(packed) => self.append(Kind::PayloadIndex, NO_RUN, 0, 0, BODY_ZSTD, packed, body.len())?,
                None => self.append(Kind::PayloadIndex, NO_RUN, 0, 0, BODY_RAW, &body, body.len())?,
            };
            list(&mut pending, &header, blake3::hash(&body).as_bytes(), Span::default());
            self.scratch = body;
        }
        (pending.previous, pending.previous_chain) = self.index;
        let offset = self.end;
        let body = self.archive(&pending)?;
        let packed = crate::codec::compress_body(&body);
        match &packed {
            Some(packed) => self.append(Kind::Index, NO_RUN, 0, 0, BODY_ZSTD, packed, body.len())?,
            None => self.append(Kind::Index, NO_RUN, 0, 0, BODY_RAW, &body, body.len())?,
        };
        self.index = (offset, *blake3::hash(&body).as_bytes());
        self.indexed_to = self.end;
        self.scratch = body;
        Ok(())
    }

    fn list(&mut self, header: &FrameHeader, blake3: &[u8; 32], span: Span) {
        list(&mut self.pending, header, blake3, span);
    }

    /// Archives into the scratch buffer; the caller puts it back.
    fn archive<R: Record>(&mut self, record: &R) -> Result<AlignedVec> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        record.encode(scratch)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the frame header's own fields")]
    fn append(
        &mut self,
        kind: Kind,
        run: u32,
        step: u32,
        payload: u64,
        codec: u8,
        stored: &[u8],
        raw_length: usize,
    ) -> Result<FrameHeader> {
        if let Some(poison) = &self.poison {
            return Err(Error::new(ErrorKind::Environment, format!("an earlier write failed: {poison}"))
                .in_file(self.storage.path()));
        }
        let length = |length: usize| {
            u32::try_from(length).ok().filter(|length| *length <= MAX_BODY_BYTES).ok_or_else(|| {
                Error::internal(format!("a {} record of {length} bytes is above the cap of 1 GiB", kind.name()))
            })
        };
        let (stored_length, raw_length) = (length(stored.len())?, length(raw_length)?);
        let zeros = [0; ALIGNMENT];
        let padding = &zeros[..(padded(u64::from(stored_length)) - u64::from(stored_length)) as usize];
        let header = FrameHeader {
            kind,
            version: VERSION,
            seq: self.seq,
            offset: self.end,
            stored_length,
            raw_length,
            run,
            step,
            codec,
            critical: true,
            payload,
            body_crc: crc32c::crc32c_append(crc32c::crc32c(stored), padding),
        };
        let written = self.storage.append(&[&header.encode(&self.uuid), stored, padding]);
        self.poisoning(written, "write")?;
        self.end = header.end();
        self.seq += 1;
        Ok(header)
    }

    fn poisoning(&mut self, outcome: std::io::Result<()>, what: &str) -> Result<()> {
        outcome.map_err(|cause| {
            self.poison = Some(cause.to_string());
            Error::io(what, self.storage.path(), cause)
        })
    }
}

/// Adds a frame to a directory.
pub fn list(index: &mut IndexV1, header: &FrameHeader, blake3: &[u8; 32], span: Span) {
    index.seq.push(header.seq);
    index.kind.push(header.kind.code());
    index.version.push(header.version);
    index.offset.push(header.offset);
    index.stored_length.push(header.stored_length);
    index.raw_length.push(header.raw_length);
    index.run.push(header.run);
    index.step.push(header.step);
    index.rows.push(span.rows);
    index.first_site.push(span.sites.0);
    index.last_site.push(span.sites.1);
    index.first_position.push(span.positions.0);
    index.last_position.push(span.positions.1);
    index.blake3.extend_from_slice(blake3);
}

/// The root of a seal: it covers the file's identity, every indexed frame (through the chain) and their number.
pub fn seal_root(uuid: &[u8; 16], chain: &[u8; 32], frames: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("actrace 1 seal root");
    hasher.update(uuid).update(chain).update(&frames.to_le_bytes());
    *hasher.finalize().as_bytes()
}
