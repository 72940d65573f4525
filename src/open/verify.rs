//! Reads a whole file and checks everything that can be checked: every checksum, every hash, every record.

use super::input::Input;
use super::payload::Payload;
use super::walk::{State, Stretch, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{FileHeader, FrameHeader, Kind, NO_RUN, seal_root};
use crate::record::{
    CoverageV1, EndV1, IndexV1, LossV1, PayloadIndexV1, PayloadV1, PlanV1, Record, RunV1, SealV1, StatsV1, StepV1,
    SyncV1, VERSION,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Frames that are checked at a time: memory is bounded by their bodies.
const GROUP: usize = 64;

/// What sort of fault it is: whether a lost tail explains it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Bytes are not those of a frame.
    Bytes,
    /// A whole frame speaks of another that is not there: behind lost bytes, their consequence.
    Missing,
    /// A whole frame says something that no writer says.
    Record,
}

impl Cause {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Bytes => "bytes",
            Cause::Missing => "missing",
            Cause::Record => "record",
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Sequence number of the frame, where one is concerned.
    pub seq: Option<u64>,
    /// Where in the file.
    pub offset: u64,
    /// Kind of the frame, where known.
    pub kind: Option<&'static str>,
    /// Run of the frame, where it belongs to one.
    pub run: Option<u32>,
    /// What sort of fault.
    pub cause: Cause,
    /// What is wrong.
    pub what: String,
}

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

/// Checks every frame of `path` on all cores. `progress` is told the bytes checked so far, and of how many.
///
/// # Errors
/// Foreign or Environment, where the file cannot be read as a trace at all; damage is no error but a fault.
pub fn verify(path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Verification> {
    let input = Input::open(path)?;
    let length = input.length()?;
    let stretches = Walk::new(&input, length).collect::<Result<Vec<_>>>()?;
    let mut check = Check::new(input.header().uuid);
    check.order(&stretches);
    let headers: Vec<FrameHeader> = stretches.iter().filter_map(frame).copied().collect();
    for group in headers.chunks(GROUP) {
        let results: Vec<_> = group.par_iter().map(|header| check_frame(&input, header)).collect();
        for (header, result) in group.iter().zip(results) {
            check.take(header, result?);
        }
        progress(group.last().map_or(0, FrameHeader::end), length);
    }
    let sealed = matches!(stretches.last(), Some(Stretch::Frame(header)) if header.kind == Kind::Seal);
    let cut = stretches.last().map_or(0, |last| if let Stretch::Cut(start) = last { length - start } else { 0 });
    check.faults.sort_by_key(|fault| fault.offset);
    let state = check.state(sealed);
    Ok(Verification {
        state,
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

/// What a checked frame says that other frames are checked against.
pub(super) enum Checked {
    Stats { hash: [u8; 32], rows: Vec<(u64, u32)> },
    Payload { hash: [u8; 32], rows: u32 },
    Index { hash: [u8; 32], index: Box<IndexV1> },
    PayloadIndex { hash: [u8; 32], index: Box<PayloadIndexV1> },
    Seal { hash: [u8; 32], seal: SealV1 },
    Sync { hash: [u8; 32], durable_to: u64 },
    Other { hash: [u8; 32] },
}

/// What a frame says, or what is wrong with it.
///
/// # Errors
/// Environment, where the file cannot be read.
fn check_frame(input: &Input, header: &FrameHeader) -> Result<Result<Checked, (Cause, Error)>> {
    Ok(match input.body(header) {
        Ok(body) => check_record(header, &body).map_err(|error| (Cause::Record, error)),
        Err(error) if error.kind() == ErrorKind::Damaged => Err((Cause::Bytes, error)),
        Err(error) => return Err(error),
    })
}

pub(super) fn check_record(header: &FrameHeader, body: &[u8]) -> Result<Checked> {
    let hash = *blake3::hash(body).as_bytes();
    if header.version != VERSION {
        return Err(Error::damaged(format!("record version {} is unknown", header.version)));
    }
    match header.kind {
        Kind::Run => RunV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::Plan => PlanV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::Step => StepV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::Coverage => CoverageV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::Loss => LossV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::End => EndV1::decode(body).map(|_| Checked::Other { hash }),
        Kind::Sync => SyncV1::decode(body).map(|sync| Checked::Sync { hash, durable_to: sync.durable_to }),
        Kind::Seal => SealV1::decode(body).map(|seal| Checked::Seal { hash, seal }),
        Kind::Index => IndexV1::decode(body).map(|index| Checked::Index { hash, index: Box::new(index) }),
        Kind::PayloadIndex => {
            PayloadIndexV1::decode(body).map(|index| Checked::PayloadIndex { hash, index: Box::new(index) })
        }
        Kind::Stats => StatsV1::decode(body)
            .map(|stats| Checked::Stats { hash, rows: stats.payload.into_iter().zip(stats.payload_row).collect() }),
        Kind::Payload => check_payload(header, &PayloadV1::decode(body)?),
        Kind::Other(code) if header.critical => {
            Err(Error::damaged(format!("frame kind {code} is unknown and marked critical")))
        }
        Kind::Other(_) => Ok(Checked::Other { hash }),
    }
}

fn check_payload(header: &FrameHeader, record: &PayloadV1) -> Result<Checked> {
    if record.payload != header.payload {
        return Err(Error::damaged("a payload's number differs from its frame's"));
    }
    Payload::decode(record)?;
    Ok(Checked::Payload { hash: record.blake3, rows: record.rows })
}

/// Checks of frames against each other, in the order of the file.
struct Check {
    uuid: [u8; 16],
    faults: Vec<Fault>,
    /// Offset and hash of frames that no index has listed yet.
    unlisted: BTreeMap<u64, (u64, [u8; 32])>,
    /// Rows of every whole payload, by number.
    payload_rows: HashMap<u64, u32>,
    next_payload: u64,
    durable_to: u64,
    last_index: (u64, [u8; 32]),
    root: Option<[u8; 32]>,
}

impl Check {
    fn new(uuid: [u8; 16]) -> Self {
        Check {
            uuid,
            faults: Vec::new(),
            unlisted: BTreeMap::new(),
            payload_rows: HashMap::new(),
            next_payload: 1,
            durable_to: FileHeader::BYTES as u64,
            last_index: (0, [0; 32]),
            root: None,
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

    fn fault(&mut self, header: &FrameHeader, cause: Cause, what: impl Into<String>) {
        self.faults.push(Fault {
            seq: Some(header.seq),
            offset: header.offset,
            kind: Some(header.kind.name()),
            run: (header.run != NO_RUN).then_some(header.run),
            cause,
            what: what.into(),
        });
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
                    self.faults.push(Fault { seq: Some(seq), offset: *start, kind: None, run: None, cause, what });
                    behind_hole = true;
                }
                Stretch::Frame(header) => {
                    if header.seq < seq || (header.seq > seq && !behind_hole) {
                        let what = format!("frame {seq} of the file says that it is frame {}", header.seq);
                        self.fault(header, Cause::Record, what);
                    }
                    seq = header.seq.saturating_add(1);
                    behind_hole = false;
                }
                Stretch::Cut(_) => {}
            }
        }
    }

    fn take(&mut self, header: &FrameHeader, result: Result<Checked, (Cause, Error)>) {
        if header.kind == Kind::Payload {
            if header.payload != self.next_payload {
                self.fault(header, Cause::Missing, "payload numbers have a gap");
            }
            self.next_payload = header.payload.saturating_add(1);
        }
        let hash = match result {
            Err((cause, error)) => return self.fault(header, cause, error.to_string()),
            Ok(Checked::Index { hash, index }) => return self.take_index(header, &index, hash),
            Ok(Checked::PayloadIndex { hash, index }) => {
                self.compare_listed(header, &index.seq, &index.offset, &index.blake3);
                hash
            }
            Ok(Checked::Seal { hash, seal }) => {
                self.take_seal(header, &seal);
                hash
            }
            Ok(Checked::Payload { hash, rows }) => {
                self.payload_rows.insert(header.payload, rows);
                hash
            }
            Ok(Checked::Stats { hash, rows }) => {
                self.take_stats(header, &rows);
                hash
            }
            Ok(Checked::Sync { hash, durable_to }) => {
                if durable_to > header.offset {
                    self.fault(header, Cause::Record, "a mark that claims more than what stands before it");
                }
                self.durable_to = self.durable_to.max(durable_to.min(header.offset));
                hash
            }
            Ok(Checked::Other { hash }) => hash,
        };
        self.unlisted.insert(header.seq, (header.offset, hash));
    }

    fn take_stats(&mut self, header: &FrameHeader, rows: &[(u64, u32)]) {
        let stray = rows
            .iter()
            .filter(|(payload, _)| *payload != 0)
            .find(|(payload, row)| self.payload_rows.get(payload).is_none_or(|rows| row >= rows));
        if let Some((payload, row)) = stray.copied() {
            self.fault(header, Cause::Missing, format!("names row {row} of payload {payload}, which is not there"));
        }
    }

    fn take_index(&mut self, header: &FrameHeader, index: &IndexV1, hash: [u8; 32]) {
        if (index.previous, index.previous_chain) != self.last_index {
            self.fault(header, Cause::Missing, "the index chain is broken");
        }
        self.compare_listed(header, &index.seq, &index.offset, &index.blake3);
        self.last_index = (header.offset, hash);
    }

    fn compare_listed(&mut self, header: &FrameHeader, seq: &[u64], offset: &[u64], hashes: &[u8]) {
        let hashes = hashes.as_chunks::<32>().0;
        for ((seq, offset), hash) in seq.iter().zip(offset).zip(hashes) {
            match self.unlisted.remove(seq) {
                Some(found) if found == (*offset, *hash) => {}
                Some(_) => self.fault(header, Cause::Record, format!("frame {seq} is not the one that was indexed")),
                None => self.fault(header, Cause::Missing, format!("lists frame {seq}, which is not there or broken")),
            }
        }
    }

    fn take_seal(&mut self, header: &FrameHeader, seal: &SealV1) {
        let root = seal_root(&self.uuid, &self.last_index.1, header.seq);
        if (seal.index, seal.frames, seal.root) != (self.last_index.0, header.seq, root) {
            self.fault(header, Cause::Missing, "the seal does not match what it seals");
        }
        if !self.unlisted.is_empty() {
            let missed = std::mem::take(&mut self.unlisted).len();
            self.fault(header, Cause::Missing, format!("the index misses {missed} frames"));
        }
        self.root = Some(seal.root);
        self.durable_to = self.durable_to.max(header.offset);
    }
}
