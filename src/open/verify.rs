//! Reads a whole file and checks everything that can be checked: every checksum, every hash, every record.

use super::directory::{FrameEntry, listed, listed_payloads};
use super::fault::{Cause, Fault};
use super::input::Input;
use super::payload::Payload;
use super::walk::{State, Stretch, Walk};
use crate::codec::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{FileHeader, FrameHeader, Kind, NO_RUN, Span, seal_root};
use crate::record::{
    ArchivedPayloadV1, CoverageV1, EndV1, IndexV1, LossV1, PayloadIndexV1, PlanV1, Record, RunV1, SealV1, StatsV1,
    StepV1, SyncV1, VERSION, WeightV1, access,
};
use rayon::prelude::*;
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Frames that are checked at a time: memory is bounded by their bodies.
const GROUP: usize = 64;

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Sealed, torn, tail lost or damaged.
    pub state: State,
    /// Whole frames.
    pub frames: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Everything before this was once handed to stable storage, as far as the marks in the file tell.
    pub durable_to: u64,
    /// Bytes of a frame that the file ends in.
    pub loose_bytes: u64,
    /// Root of the seal at the end.
    pub root: Option<[u8; 32]>,
    /// Everything that is wrong, in the order of the file.
    pub faults: Vec<Fault>,
}

/// Checks every frame of `input` on all cores. `progress` is told the bytes checked so far, and of how many.
///
/// # Errors
/// Environment, where the file cannot be read; damage is no error but a fault.
pub fn verify(input: &Input, mut progress: impl FnMut(u64, u64)) -> Result<Verification> {
    let length = input.length()?;
    let stretches = Walk::new(input, length).collect::<Result<Vec<_>>>()?;
    let mut check = Check::new(*input.header());
    check.order(&stretches);
    let headers: Vec<FrameHeader> = stretches.iter().filter_map(frame).copied().collect();
    let buffers = Mutex::default();
    for group in headers.chunks(GROUP) {
        let results: Vec<_> = group.par_iter().map(|header| check_frame(input, header, &buffers)).collect();
        for (header, result) in group.iter().zip(results) {
            check.take(header, result?);
        }
        progress(group.last().map_or(0, FrameHeader::end), length);
    }
    let sealed = matches!(stretches.last(), Some(Stretch::Frame(header)) if header.kind == Kind::Seal);
    let cut = stretches.last().map_or(0, |last| if let Stretch::Cut(start) = last { length - start } else { 0 });
    check.faults.sort_by_key(|fault| fault.offset);
    super::naming::name_points(input, &headers, &mut check.faults);
    Ok(Verification {
        state: check.state(sealed),
        frames: headers.len() as u64,
        bytes: length,
        durable_to: check.durable_to,
        loose_bytes: cut,
        root: check.root.filter(|_| sealed),
        faults: check.faults,
    })
}

fn frame(stretch: &Stretch) -> Option<&FrameHeader> {
    if let Stretch::Frame(header) = stretch { Some(header) } else { None }
}

/// What a checked frame says that other frames are checked against, and the hash that an index lists.
struct Checked {
    hash: [u8; 32],
    body: Body,
}

pub(super) enum Body {
    Stats { span: Span, rows: Vec<(u64, u32)> },
    Payload { rows: u32 },
    Index(Box<IndexV1>),
    PayloadIndex(Box<PayloadIndexV1>),
    Weight(Box<WeightV1>),
    Seal(SealV1),
    Sync(SyncV1),
    Other,
}

/// What a frame says, or what is wrong with it.
///
/// # Errors
/// Environment, where the file cannot be read.
fn check_frame(
    input: &Input,
    header: &FrameHeader,
    buffers: &Mutex<Vec<Buffers>>,
) -> Result<Result<Checked, (Cause, Error)>> {
    if header.kind != Kind::Payload {
        let check =
            |body: &[u8]| Ok(Checked { hash: *blake3::hash(body).as_bytes(), body: check_record(header, body)? });
        return sorted(input.body(header), |body| check(&body));
    }
    let mut held = buffers.lock().map_or(None, |mut buffers| buffers.pop()).unwrap_or_default();
    let body = input.body_in(header, std::mem::take(&mut held.body));
    let checked = sorted(body, |body| {
        let checked = check_payload(header, &body, &mut held.decoder);
        held.body = body;
        checked
    });
    if let Ok(mut buffers) = buffers.lock() {
        buffers.push(held);
    }
    checked
}

/// What a thread needs for a payload: there are as many as threads.
#[derive(Default)]
struct Buffers {
    body: AlignedVec<64>,
    decoder: Decoder,
}

/// What `check` says of a body that could be read; damage is a finding, not an error.
fn sorted<B>(body: Result<B>, check: impl FnOnce(B) -> Result<Checked>) -> Result<Result<Checked, (Cause, Error)>> {
    Ok(match body {
        Ok(body) => check(body).map_err(|error| (Cause::Record, error)),
        Err(error) if error.kind() == ErrorKind::Damaged => Err((Cause::Bytes, error)),
        Err(error) => return Err(error),
    })
}

pub(super) fn check_record(header: &FrameHeader, body: &[u8]) -> Result<Body> {
    if let Kind::Other(code) = header.kind {
        return match header.critical {
            true => Err(Error::damaged(format!(
                "frame kind {code} is unknown and marked critical: a later version wrote it"
            ))),
            false => Ok(Body::Other),
        };
    }
    known_version(header)?;
    Ok(match header.kind {
        Kind::Run => RunV1::decode(body).map(|_| Body::Other)?,
        Kind::Plan => PlanV1::decode(body).map(|_| Body::Other)?,
        Kind::Stats => {
            let stats = StatsV1::decode(body)?;
            same_step(header, stats.step)?;
            Body::Stats { span: Span::of(&stats), rows: stats.payload.into_iter().zip(stats.payload_row).collect() }
        }
        Kind::Step => {
            same_step(header, StepV1::decode(body)?.step)?;
            Body::Other
        }
        Kind::Coverage => CoverageV1::decode(body).map(|_| Body::Other)?,
        Kind::Loss => LossV1::decode(body).map(|_| Body::Other)?,
        Kind::Weight => Body::Weight(Box::new(WeightV1::decode(body)?)),
        Kind::End => EndV1::decode(body).map(|_| Body::Other)?,
        Kind::Sync => Body::Sync(SyncV1::decode(body)?),
        Kind::Index => Body::Index(Box::new(IndexV1::decode(body)?)),
        Kind::PayloadIndex => Body::PayloadIndex(Box::new(PayloadIndexV1::decode(body)?)),
        Kind::Seal => Body::Seal(SealV1::decode(body)?),
        Kind::Payload | Kind::Other(_) => Body::Other,
    })
}

fn check_payload(header: &FrameHeader, body: &[u8], decoder: &mut Decoder) -> Result<Checked> {
    known_version(header)?;
    let archived = access::<ArchivedPayloadV1>(body)?;
    let record = archived.without_bytes()?;
    if record.payload != header.payload {
        return Err(Error::damaged("a payload's number differs from its frame's"));
    }
    Payload::check(&record, &archived.bytes, decoder)?;
    Ok(Checked { hash: record.blake3, body: Body::Payload { rows: record.rows } })
}

pub(super) fn known_version(header: &FrameHeader) -> Result<()> {
    if header.version == VERSION {
        Ok(())
    } else {
        Err(Error::damaged(format!("version {} of a {} record is unknown", header.version, header.kind.name())))
    }
}

fn same_step(header: &FrameHeader, step: u32) -> Result<()> {
    if header.step == step {
        Ok(())
    } else {
        Err(Error::damaged(format!("a record of step {step} in a frame of step {}", header.step)))
    }
}

/// Checks of frames against each other, in the order of the file.
struct Check {
    header: FileHeader,
    faults: Vec<Fault>,
    /// Frames that no index has listed yet, by number.
    unlisted: BTreeMap<u64, (FrameEntry, [u8; 32])>,
    runs: u32,
    /// Number and rows of every payload, ascending.
    payloads: Vec<(u64, u32)>,
    listed_payloads: u64,
    /// The payload index since the last index; 0 where there is none.
    payload_index: u64,
    last_index: (u64, [u8; 32]),
    root: Option<[u8; 32]>,
    durable_to: u64,
}

impl Check {
    fn new(header: FileHeader) -> Self {
        Check {
            header,
            faults: Vec::new(),
            unlisted: BTreeMap::new(),
            runs: 0,
            payloads: Vec::new(),
            listed_payloads: 0,
            payload_index: 0,
            last_index: (0, [0; 32]),
            root: None,
            durable_to: FileHeader::BYTES as u64,
        }
    }

    /// What the file is, now that every fault and every mark is known.
    fn state(&self, sealed: bool) -> State {
        let holes = self.faults.iter().filter(|fault| fault.cause == Cause::Bytes).map(|fault| fault.offset);
        let first = holes.clone().min().unwrap_or(u64::MAX);
        let unexplained = |fault: &Fault| match fault.cause {
            Cause::Bytes => false,
            Cause::Missing => fault.offset < first,
            Cause::Record => true,
        };
        match State::of_unsealed(holes, self.durable_to) {
            _ if self.faults.iter().any(unexplained) => State::Damaged,
            State::Torn if sealed => State::Sealed,
            state => state,
        }
    }

    /// A frame does not fit those before it.
    fn fault(&mut self, header: &FrameHeader, what: impl Into<String>) {
        self.fault_of(header, Cause::Missing, what);
    }

    fn fault_of(&mut self, header: &FrameHeader, cause: Cause, what: impl Into<String>) {
        self.faults.push(Fault {
            seq: Some(header.seq),
            offset: header.offset,
            kind: Some(header.kind.name()),
            run: (header.run != NO_RUN).then_some(header.run),
            points: Vec::new(),
            cause,
            what: what.into(),
        });
    }

    fn require(&mut self, header: &FrameHeader, holds: bool, otherwise: &str) {
        if !holds {
            self.fault(header, otherwise);
        }
    }

    /// Frames follow each other without a hole in place or number.
    fn order(&mut self, stretches: &[Stretch]) {
        let mut seq = 0;
        let mut behind_hole = false;
        for stretch in stretches {
            match stretch {
                Stretch::Hole(start, end) => {
                    let what = format!("{} bytes hold no whole frame", end - start);
                    let cause = Cause::Bytes;
                    self.faults.push(Fault {
                        seq: Some(seq),
                        offset: *start,
                        kind: None,
                        run: None,
                        points: Vec::new(),
                        cause,
                        what,
                    });
                    behind_hole = true;
                }
                Stretch::Frame(header) => {
                    if header.seq < seq || (header.seq > seq && !behind_hole) {
                        let what = format!("frame {seq} of the file says that it is frame {}", header.seq);
                        self.fault_of(header, Cause::Record, what);
                    }
                    seq = header.seq.saturating_add(1);
                    behind_hole = false;
                }
                Stretch::Cut(_) => {}
            }
        }
    }

    fn take(&mut self, header: &FrameHeader, result: Result<Checked, (Cause, Error)>) {
        self.take_run(header);
        let Checked { hash, body } = match result {
            Err((cause, error)) => {
                // One broken frame is one fault: rows that name a broken payload are not blamed for it.
                if header.kind == Kind::Payload {
                    self.take_payload(header, u32::MAX);
                }
                return self.fault_of(header, cause, error.to_string());
            }
            Ok(checked) => checked,
        };
        let mut span = Span::default();
        match body {
            Body::Index(index) => return self.take_index(header, &index, hash),
            Body::PayloadIndex(index) => self.take_payload_index(header, &index),
            Body::Seal(seal) => self.take_seal(header, &seal),
            Body::Sync(sync) => self.take_sync(header, &sync),
            Body::Payload { rows } => self.take_payload(header, rows),
            Body::Stats { span: covered, rows } => {
                span = covered;
                self.take_stats(header, &rows);
            }
            Body::Weight(weight) => self.take_weight(header, &weight),
            Body::Other => {}
        }
        self.unlisted.insert(header.seq, (FrameEntry::new(header, span), hash));
    }

    /// Runs are numbered in order, and a run's frames come after its first and before the next run.
    fn take_run(&mut self, header: &FrameHeader) {
        let belongs = match header.kind {
            Kind::Run => {
                self.require(header, header.run >= self.runs, "runs are not numbered in order");
                self.runs = header.run.saturating_add(1);
                true
            }
            Kind::Index | Kind::PayloadIndex | Kind::Seal => false,
            Kind::Sync | Kind::Other(_) => header.run != NO_RUN,
            _ => true,
        };
        self.require(header, belongs || header.step == 0, "a step on a frame of no run");
        let expected = if belongs { self.runs.checked_sub(1) } else { Some(NO_RUN) };
        self.require(header, expected == Some(header.run), "a frame of another run than the one it stands in");
        let numbered = header.kind == Kind::Payload || header.payload == 0;
        if !numbered {
            self.fault_of(header, Cause::Record, "a payload number on a frame of another kind");
        }
    }

    fn take_payload(&mut self, header: &FrameHeader, rows: u32) {
        let last = self.payloads.last().map_or(0, |(number, _)| *number);
        self.require(header, last.checked_add(1) == Some(header.payload), "payload numbers have a gap");
        if header.payload > last {
            self.payloads.push((header.payload, rows));
        }
    }

    fn take_stats(&mut self, header: &FrameHeader, rows: &[(u64, u32)]) {
        self.take_rows(header, rows.iter().copied().filter(|(payload, _)| *payload != 0));
    }

    fn take_weight(&mut self, header: &FrameHeader, weight: &WeightV1) {
        self.take_rows(header, weight.payloads.iter().chain(&weight.scale_payloads).map(|payload| (*payload, 0)));
    }

    /// Rows of payloads that a frame names are there.
    fn take_rows(&mut self, header: &FrameHeader, mut rows: impl Iterator<Item = (u64, u32)>) {
        let known = |payload: u64| {
            let at = self.payloads.binary_search_by_key(&payload, |(number, _)| *number).ok()?;
            self.payloads.get(at).map(|(_, rows)| *rows)
        };
        if let Some((payload, row)) = rows.find(|(payload, row)| known(*payload).is_none_or(|rows| *row >= rows)) {
            self.fault(header, format!("names row {row} of payload {payload}, which is not there"));
        }
    }

    fn take_index(&mut self, header: &FrameHeader, index: &IndexV1, hash: [u8; 32]) {
        let chained = (index.previous, index.previous_chain) == self.last_index;
        self.require(header, chained, "the index chain is broken");
        let payload_index = std::mem::take(&mut self.payload_index);
        self.require(header, index.payload_index == payload_index, "the index names another payload index");
        let entries = (0..index.seq.len()).map(|row| listed(index, row));
        self.compare_listed(header, entries, &index.blake3);
        self.last_index = (header.offset, hash);
    }

    fn take_payload_index(&mut self, header: &FrameHeader, index: &PayloadIndexV1) {
        self.payload_index = header.offset;
        let follows = index.first_payload == self.listed_payloads.saturating_add(1);
        self.require(header, follows, "payload numbers have a gap");
        self.listed_payloads = self.listed_payloads.saturating_add(index.seq.len() as u64);
        self.compare_listed(header, listed_payloads(index), &index.blake3);
    }

    fn compare_listed(&mut self, header: &FrameHeader, entries: impl Iterator<Item = FrameEntry>, hashes: &[u8]) {
        for (entry, hash) in entries.zip(hashes.as_chunks::<32>().0) {
            let seq = entry.seq;
            match self.unlisted.remove(&seq) {
                Some(found) if found == (entry, *hash) => {}
                Some(_) => self.fault(header, format!("frame {seq} is not the one that was indexed")),
                None => self.fault(header, format!("lists frame {seq}, which is not there or broken")),
            }
        }
    }

    fn take_seal(&mut self, header: &FrameHeader, seal: &SealV1) {
        let root = seal_root(&self.header, &self.last_index.1, header.seq);
        let matches = (seal.index, seal.frames, seal.root) == (self.last_index.0, header.seq, root);
        let counts = (seal.runs, seal.payloads) == (self.runs, self.payloads.len() as u64);
        self.require(header, matches && counts, "the seal does not match what it seals");
        if !self.unlisted.is_empty() {
            let missed = std::mem::take(&mut self.unlisted).len();
            self.fault(header, format!("the index misses {missed} frames"));
        }
        self.root = Some(seal.root);
        self.durable_to = self.durable_to.max(header.offset);
    }

    fn take_sync(&mut self, header: &FrameHeader, sync: &SyncV1) {
        if sync.durable_to > header.offset {
            self.fault_of(header, Cause::Record, "a mark that claims more than what stands before it");
        }
        self.durable_to = self.durable_to.max(sync.durable_to.min(header.offset));
    }
}
