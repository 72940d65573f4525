//! Reads a whole file and checks everything that can be checked: every checksum, every hash, every record.

use super::directory::{State, Walk};
use super::input::Input;
use super::payload::Payload;
use crate::error::{Error, Result};
use crate::file::{FrameHeader, Kind, NO_RUN, seal_root};
use crate::record::{
    CoverageV1, EndV1, IndexV1, LossV1, PayloadIndexV1, PayloadV1, PlanV1, Record, RunV1, SealV1, StatsV1, StepV1,
    SyncV1, VERSION,
};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Frames that are checked at a time: memory is bounded by their bodies.
const GROUP: usize = 64;

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
    /// What is wrong.
    pub what: String,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Sealed, torn or damaged.
    pub state: State,
    /// Whole frames.
    pub frames: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Bytes behind the last whole frame.
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
    let headers = Walk::new(input, length).collect::<Result<Vec<_>>>()?;
    let mut check = Check::new(input.header().uuid);
    check.order(&headers);
    for group in headers.chunks(GROUP) {
        let results: Vec<_> = group.par_iter().map(|header| check_frame(input, header)).collect();
        for (header, result) in group.iter().zip(results) {
            check.take(header, result);
        }
        progress(group.last().map_or(0, FrameHeader::end), length);
    }
    let end = headers.last().map_or(crate::file::FileHeader::BYTES as u64, FrameHeader::end);
    let sealed = end == length && headers.last().is_some_and(|header| header.kind == Kind::Seal);
    let state = match (check.faults.is_empty(), sealed) {
        (false, _) => State::Damaged,
        (true, true) => State::Sealed,
        (true, false) => State::Torn,
    };
    check.faults.sort_by_key(|fault| fault.offset);
    Ok(Verification {
        state,
        frames: headers.len() as u64,
        bytes: length,
        loose_bytes: length.saturating_sub(end),
        root: check.root.filter(|_| sealed),
        faults: check.faults,
    })
}

/// What a checked frame says that other frames are checked against.
enum Checked {
    Stats { hash: [u8; 32], rows: Vec<(u64, u32)> },
    Payload { hash: [u8; 32], rows: u32 },
    Index { hash: [u8; 32], index: Box<IndexV1> },
    PayloadIndex { hash: [u8; 32], index: Box<PayloadIndexV1> },
    Seal { hash: [u8; 32], seal: SealV1 },
    Other { hash: [u8; 32] },
}

fn check_frame(input: &Input, header: &FrameHeader) -> Result<Checked> {
    let body = input.body(header)?;
    let hash = *blake3::hash(&body).as_bytes();
    if header.version != VERSION {
        return Err(Error::damaged(format!("record version {} is unknown", header.version)));
    }
    match header.kind {
        Kind::Run => RunV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Plan => PlanV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Step => StepV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Coverage => CoverageV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Loss => LossV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::End => EndV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Sync => SyncV1::decode(&body).map(|_| Checked::Other { hash }),
        Kind::Seal => SealV1::decode(&body).map(|seal| Checked::Seal { hash, seal }),
        Kind::Index => IndexV1::decode(&body).map(|index| Checked::Index { hash, index: Box::new(index) }),
        Kind::PayloadIndex => {
            PayloadIndexV1::decode(&body).map(|index| Checked::PayloadIndex { hash, index: Box::new(index) })
        }
        Kind::Stats => StatsV1::decode(&body)
            .map(|stats| Checked::Stats { hash, rows: stats.payload.into_iter().zip(stats.payload_row).collect() }),
        Kind::Payload => check_payload(header, &PayloadV1::decode(&body)?),
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
    /// Rows of every payload, by number from 1.
    payload_rows: Vec<u32>,
    last_index: (u64, [u8; 32]),
    root: Option<[u8; 32]>,
}

impl Check {
    fn new(uuid: [u8; 16]) -> Self {
        Check {
            uuid,
            faults: Vec::new(),
            unlisted: BTreeMap::new(),
            payload_rows: Vec::new(),
            last_index: (0, [0; 32]),
            root: None,
        }
    }

    fn fault(&mut self, header: &FrameHeader, what: impl Into<String>) {
        self.faults.push(Fault {
            seq: Some(header.seq),
            offset: header.offset,
            kind: Some(header.kind.name()),
            run: (header.run != NO_RUN).then_some(header.run),
            what: what.into(),
        });
    }

    /// Frames follow each other without a gap in place or number.
    fn order(&mut self, headers: &[FrameHeader]) {
        let mut end = crate::file::FileHeader::BYTES as u64;
        let mut seq = 0;
        for header in headers {
            if header.offset != end {
                let what = format!("{} bytes hold no whole frame", header.offset - end);
                self.faults.push(Fault { seq: Some(seq), offset: end, kind: None, run: None, what });
            } else if header.seq != seq {
                self.fault(header, format!("frame {seq} of the file says that it is frame {}", header.seq));
            }
            (end, seq) = (header.end(), header.seq.saturating_add(1));
        }
    }

    fn take(&mut self, header: &FrameHeader, result: Result<Checked>) {
        let hash = match result {
            Err(error) => return self.fault(header, error.to_string()),
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
                self.payload_rows.push(rows);
                if header.payload != self.payload_rows.len() as u64 {
                    self.fault(header, "payload numbers have a gap");
                }
                hash
            }
            Ok(Checked::Stats { hash, rows }) => {
                self.take_stats(header, &rows);
                hash
            }
            Ok(Checked::Other { hash }) => hash,
        };
        self.unlisted.insert(header.seq, (header.offset, hash));
    }

    fn take_stats(&mut self, header: &FrameHeader, rows: &[(u64, u32)]) {
        let known =
            |payload: u64| payload.checked_sub(1).and_then(|at| self.payload_rows.get(usize::try_from(at).ok()?));
        let stray = rows
            .iter()
            .filter(|(payload, _)| *payload != 0)
            .find(|(payload, row)| known(*payload).is_none_or(|rows| row >= rows));
        if let Some((payload, row)) = stray.copied() {
            self.fault(header, format!("names row {row} of payload {payload}, which is not there"));
        }
    }

    fn take_index(&mut self, header: &FrameHeader, index: &IndexV1, hash: [u8; 32]) {
        if (index.previous, index.previous_chain) != self.last_index {
            self.fault(header, "the index chain is broken");
        }
        self.compare_listed(header, &index.seq, &index.offset, &index.blake3);
        self.last_index = (header.offset, hash);
    }

    fn compare_listed(&mut self, header: &FrameHeader, seq: &[u64], offset: &[u64], hashes: &[u8]) {
        let hashes = hashes.as_chunks::<32>().0;
        for ((seq, offset), hash) in seq.iter().zip(offset).zip(hashes) {
            match self.unlisted.remove(seq) {
                Some(found) if found == (*offset, *hash) => {}
                Some(_) => self.fault(header, format!("frame {seq} is not the one that was indexed")),
                None => self.fault(header, format!("lists frame {seq}, which is not there or broken")),
            }
        }
    }

    fn take_seal(&mut self, header: &FrameHeader, seal: &SealV1) {
        let root = seal_root(&self.uuid, &self.last_index.1, header.seq);
        if (seal.index, seal.frames, seal.root) != (self.last_index.0, header.seq, root) {
            self.fault(header, "the seal does not match what it seals");
        }
        if !self.unlisted.is_empty() {
            let missed = std::mem::take(&mut self.unlisted).len();
            self.fault(header, format!("the index misses {missed} frames"));
        }
        self.root = Some(seal.root);
    }
}
