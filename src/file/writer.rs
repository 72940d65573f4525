//! Appends frames: numbers them, sums them, keeps the directory, seals.

use super::syncing::Syncing;
use super::{ALIGNMENT, Durability, FileHeader, FrameHeader, Kind, MAX_BODY_BYTES, NO_RUN, Storage, padded};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{BODY_RAW, BODY_ZSTD};
use crate::record::{Framed, IndexV1, PayloadIndexV1, PayloadV1, Record, RunV1, SealV1, StatsV1, SyncV1, VERSION};
use rkyv::util::AlignedVec;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

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

/// What stands in a frame's header beside its place and its body.
struct Draft {
    kind: Kind,
    version: u16,
    run: u32,
    step: u32,
    payload: u64,
    codec: u8,
    critical: bool,
    raw_length: usize,
}

impl Draft {
    fn of(kind: Kind, run: u32, step: u32) -> Self {
        Draft { kind, version: VERSION, run, step, payload: 0, codec: BODY_RAW, critical: true, raw_length: 0 }
    }
}

/// The stored bytes of a body: three parts, one after the other, and the crc32c of them all.
struct Body<'a> {
    parts: [&'a [u8]; 3],
    crc: u32,
}

impl<'a> Body<'a> {
    fn of(stored: &'a [u8]) -> Self {
        Body { parts: [&[], stored, &[]], crc: crc32c::crc32c(stored) }
    }

    fn length(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// Writer of a trace file.
///
/// A failed write or sync poisons it: nothing is written afterwards and nothing pretends to be sealed. What the failed
/// write left is a torn tail, which readers skip and the next writer cuts: a device that just refused a write is not
/// asked for anything more. After a failed sync the kernel may have dropped what it could not write, so no later sync
/// is believed either.
pub struct Writer<S> {
    storage: S,
    syncing: Syncing,
    header: FileHeader,
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
    /// Writes the header of a new file and syncs it.
    pub fn create(mut storage: S, header: FileHeader) -> Result<Self> {
        let written = storage.append(&[&header.encode()]).map_err(|cause| failed("write", cause));
        let synced = written.and_then(|()| storage.sync().map_err(|cause| failed("sync", cause)));
        synced.map_err(|error| error.in_file(storage.path()))?;
        Ok(Self::resume(storage, header, Tail::empty()))
    }

    /// Goes on behind `tail`; the storage appends at `tail.end`. Nothing is synced between here and the seal until
    /// [`Writer::with_durability`] says so.
    pub fn resume(storage: S, header: FileHeader, tail: Tail) -> Self {
        let mut writer = Writer {
            storage,
            syncing: Syncing::new(Durability::None),
            header,
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

    /// Syncs as `durability` says.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.syncing.follow(durability);
        self
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
        self.body(Draft::of(R::KIND, run, step), &body, span)?;
        self.scratch = body;
        Ok(())
    }

    /// Appends the body of a frame of another file as a frame of this one; neither a payload nor one of the frames
    /// that a writer makes itself (index, sync, seal).
    pub(crate) fn copy(&mut self, header: &FrameHeader, body: &[u8]) -> Result<()> {
        if header.run != NO_RUN {
            self.runs = self.runs.max(header.run + 1);
        }
        let draft = Draft {
            version: header.version,
            critical: header.critical,
            ..Draft::of(header.kind, header.run, header.step)
        };
        self.body(draft, body, Span::default())
    }

    /// Appends a frame that the index lists.
    fn body(&mut self, draft: Draft, body: &[u8], span: Span) -> Result<()> {
        let header = self.packed(draft, body)?;
        list(&mut self.pending, &header, blake3::hash(body).as_bytes(), span);
        if self.end - self.indexed_to > INDEX_EVERY_BYTES || self.pending_frames() > INDEX_EVERY_FRAMES {
            self.write_index()?;
        }
        Ok(())
    }

    /// Appends a body, compressed where that pays.
    fn packed(&mut self, draft: Draft, body: &[u8]) -> Result<FrameHeader> {
        let packed = if body.len() >= COMPRESS_FROM { crate::codec::compress_body(body) } else { None };
        let draft = Draft { raw_length: body.len(), ..draft };
        match &packed {
            Some(packed) => self.append(Draft { codec: BODY_ZSTD, ..draft }, &Body::of(packed)),
            None => self.append(draft, &Body::of(body)),
        }
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
        let bytes_crc = crc32c::crc32c(&payload.bytes);
        self.summed_payload(run, step, &mut payload, bytes_crc)
    }

    /// [`Writer::payload`] where another thread has taken the crc32c of `payload.bytes`: neither copies the bytes nor
    /// looks at them.
    pub fn summed_payload(&mut self, run: u32, step: u32, payload: &mut PayloadV1, bytes_crc: u32) -> Result<u64> {
        payload.payload = self.payload;
        let Framed { head, tail } = payload.framed()?;
        let crc = crc32c::crc32c_combine(crc32c::crc32c(&head), bytes_crc, payload.bytes.len());
        let body = Body { parts: [&head, &payload.bytes, &tail], crc: crc32c::crc32c_append(crc, &tail) };
        let draft =
            Draft { payload: payload.payload, raw_length: body.length(), ..Draft::of(Kind::Payload, run, step) };
        let header = self.append(draft, &body)?;
        let pending = &mut self.pending_payloads;
        if pending.seq.is_empty() {
            pending.first_payload = payload.payload;
        }
        pending.seq.push(header.seq);
        pending.offset.push(header.offset);
        pending.stored_length.push(header.stored_length);
        pending.raw_length.push(header.raw_length);
        pending.run.push(run);
        pending.step.push(step);
        pending.blake3.extend_from_slice(&payload.blake3);
        self.remember(payload.blake3, payload.payload);
        self.payload += 1;
        Ok(payload.payload)
    }

    /// Writes the directory and the seal, and hands the file to stable storage.
    ///
    /// The seal is written when everything before it is durable, so that a seal is a durable mark too: what is broken
    /// in front of one was not lost by a power loss.
    pub fn seal(&mut self) -> Result<()> {
        self.settle()?;
        self.write_index()?;
        self.harden()?;
        let seal = SealV1 {
            index: self.index.0,
            frames: self.seq,
            runs: self.runs,
            payloads: self.payload - 1,
            root: seal_root(&self.header, &self.index.1, self.seq),
        };
        let body = self.archive(&seal)?;
        let draft = Draft { raw_length: body.len(), ..Draft::of(Kind::Seal, NO_RUN, 0) };
        let header = self.append(draft, &Body::of(&body))?;
        list(&mut self.pending, &header, blake3::hash(&body).as_bytes(), Span::default());
        self.scratch = body;
        self.harden()
    }

    /// Hands everything written so far to stable storage, then writes a SYNC frame that says how far: a reader that
    /// finds a hole behind the last mark knows that an unsynced tail was lost, and one before it, that durable bytes
    /// changed. Does nothing where nothing but marks was written since the last sync.
    pub fn sync(&mut self) -> Result<()> {
        self.settle()?;
        if !self.syncing.is_owed() {
            return Ok(());
        }
        let durable_to = self.end;
        self.harden()?;
        self.record(NO_RUN, 0, &SyncV1 { durable_to })
    }

    /// Waits for the sync that is under way beside the writing, if there is one, and writes its mark.
    fn settle(&mut self) -> Result<()> {
        self.check_poison()?;
        let synced = self.syncing.wait();
        match self.poisoning(synced, "sync")? {
            Some(durable_to) => self.record(NO_RUN, 0, &SyncV1 { durable_to }),
            None => Ok(()),
        }
    }

    /// [`Writer::sync`] beside the writing, where the storage can do that: its mark follows when it is done. One at a
    /// time: the one before is waited for, so that no more is unsynced than what two of them cover. What is not `due` does
    /// not keep the writing waiting.
    fn start_sync(&mut self, due: bool) -> Result<()> {
        self.settle()?;
        match self.storage.detached_sync() {
            Some(sync) if self.syncing.is_owed() => {
                let started = self.syncing.start(sync, self.end);
                started.map_err(|cause| Error::new(ErrorKind::Environment, "cannot start a thread").because(cause))
            }
            _ if due => self.sync(),
            _ => Ok(()),
        }
    }

    /// A step was written: syncs where the durability level says so.
    pub fn step_ended(&mut self) -> Result<()> {
        if self.syncing.every_step() { self.sync() } else { self.sync_if_due() }
    }

    /// Syncs where the oldest unsynced frame has waited as long as the durability level allows, or much has gathered and
    /// no sync is under way; beside the writing where the storage can do that.
    pub fn sync_if_due(&mut self) -> Result<()> {
        let due = self.due_in() == Some(Duration::ZERO);
        if due || self.poison.is_none() && self.syncing.can_begin_early() {
            self.start_sync(due)
        } else if self.syncing.has_ended() {
            self.settle()
        } else {
            Ok(())
        }
    }

    /// Time until [`Writer::sync_if_due`] has something to do; `None` where only further frames can bring that about.
    pub fn due_in(&self) -> Option<Duration> {
        if self.poison.is_none() { self.syncing.due_in() } else { None }
    }

    /// Everything written so far is durable, or the writer is poisoned.
    fn harden(&mut self) -> Result<()> {
        self.check_poison()?;
        let synced = self.storage.sync();
        self.poisoning(synced, "sync")?;
        self.syncing.synced();
        Ok(())
    }

    /// Bytes of the file so far.
    pub fn file_bytes(&self) -> u64 {
        self.end
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

    /// Lists every frame since the last index. Also the first act of a writer that goes on where another was killed
    /// between the two frames of an index.
    pub(crate) fn write_index(&mut self) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let payloads = std::mem::take(&mut self.pending_payloads);
        if !payloads.seq.is_empty() {
            pending.payload_index = self.end;
            let body = self.archive(&payloads)?;
            let header = self.packed(Draft::of(Kind::PayloadIndex, NO_RUN, 0), &body)?;
            list(&mut pending, &header, blake3::hash(&body).as_bytes(), Span::default());
            self.scratch = body;
        }
        (pending.previous, pending.previous_chain) = self.index;
        let offset = self.end;
        let body = self.archive(&pending)?;
        self.packed(Draft::of(Kind::Index, NO_RUN, 0), &body)?;
        self.index = (offset, *blake3::hash(&body).as_bytes());
        self.indexed_to = self.end;
        self.scratch = body;
        Ok(())
    }

    /// Archives into the scratch buffer; the caller puts it back.
    fn archive<R: Record>(&mut self, record: &R) -> Result<AlignedVec> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        record.encode(scratch)
    }

    fn append(&mut self, draft: Draft, stored: &Body<'_>) -> Result<FrameHeader> {
        self.check_poison()?;
        let length = |length: usize| {
            u32::try_from(length).ok().filter(|length| *length <= MAX_BODY_BYTES).ok_or_else(|| {
                Error::internal(format!("a {} record of {length} bytes is above the cap of 1 GiB", draft.kind.name()))
            })
        };
        let (stored_length, raw_length) = (length(stored.length())?, length(draft.raw_length)?);
        let zeros = [0; ALIGNMENT];
        let padding = &zeros[..(padded(u64::from(stored_length)) - u64::from(stored_length)) as usize];
        let header = FrameHeader {
            kind: draft.kind,
            version: draft.version,
            seq: self.seq,
            offset: self.end,
            stored_length,
            raw_length,
            run: draft.run,
            step: draft.step,
            codec: draft.codec,
            critical: draft.critical,
            payload: draft.payload,
            body_crc: crc32c::crc32c_append(stored.crc, padding),
        };
        let [head, bytes, tail] = stored.parts;
        let written = self.storage.append(&[&header.encode(&self.header.uuid), head, bytes, tail, padding]);
        self.poisoning(written, "write")?;
        let bytes = header.end() - self.end;
        self.end = header.end();
        self.seq += 1;
        if header.kind != Kind::Sync {
            self.syncing.written(bytes);
        }
        Ok(header)
    }

    fn check_poison(&self) -> Result<()> {
        match &self.poison {
            Some(poison) => Err(Error::new(ErrorKind::Environment, format!("an earlier write failed: {poison}"))
                .in_file(self.storage.path())),
            None => Ok(()),
        }
    }

    fn poisoning<T>(&mut self, outcome: std::io::Result<T>, what: &str) -> Result<T> {
        outcome.map_err(|cause| {
            self.poison = Some(cause.to_string());
            failed(what, cause).in_file(self.storage.path())
        })
    }
}

/// The error of a refused `what`, with what to do about it.
fn failed(what: &str, cause: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    const GO_ON: &str = "every whole frame written so far stays readable, and the next recording goes on behind them";
    let message = match cause.kind() {
        Io::StorageFull => format!("cannot {what}: the disk is full: free some space; {GO_ON}"),
        Io::QuotaExceeded => format!("cannot {what}: the disk quota is used up: free some space; {GO_ON}"),
        Io::FileTooLarge => format!(
            "cannot {what}: the file would exceed the size limit of this process or file system (see ulimit -f); {GO_ON}"
        ),
        _ => format!("cannot {what}"),
    };
    Error::new(ErrorKind::Environment, message).because(cause)
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

/// The root of a seal: it covers the file's header, every indexed frame (through the chain) and their number.
pub fn seal_root(header: &FileHeader, chain: &[u8; 32], frames: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("actrace 1 seal root");
    hasher.update(&header.encode()).update(chain).update(&frames.to_le_bytes());
    *hasher.finalize().as_bytes()
}
