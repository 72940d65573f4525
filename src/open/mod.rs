//! Reading a trace: open by index, records on demand, payloads only when asked for.

mod set;
pub use set::{RunRef, TraceSet, hexadecimal};

use crate::error::Result;
use crate::record::{CoverageV1, EndV1, PlanV1, RunV1, StatsV1, StepV1};
use crate::tensor::Dtype;
use std::path::Path;
use std::sync::Arc;

/// What opening found out about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Complete: a seal ends it.
    Sealed,
    /// No seal at the end: a writer is at work, or was killed. Every whole frame is readable.
    Torn,
}

/// One frame of the log, as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Sequence number.
    pub seq: u64,
    /// Kind.
    pub kind: crate::file::Kind,
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

/// A committed step: its commit frame and its statistics frames.
#[derive(Debug, Clone)]
pub struct StepFrames {
    /// Number of the step.
    pub step: u32,
    /// The STEP frame.
    pub commit: FrameEntry,
    /// The STATS frames, in order.
    pub stats: Vec<FrameEntry>,
}

/// One run of a file.
#[derive(Debug)]
pub struct RunView {
    /// Number in the file.
    pub ordinal: u32,
    /// Identity.
    pub identity: Arc<RunV1>,
    /// Expected capture points.
    pub plan: Arc<PlanV1>,
    /// How it ended; `None` for a run that is live or was killed.
    pub end: Option<EndV1>,
    /// Committed steps in order.
    pub steps: Vec<StepFrames>,
}

/// An open trace file. Shared freely between threads.
#[derive(Debug)]
pub struct Trace {}

impl Trace {
    /// Opens `path`, by its index if it is sealed, else by walking the frames behind the last index.
    pub fn open(path: &Path) -> Result<Arc<Trace>> { todo!() }
    /// The path as given.
    pub fn path(&self) -> &Path { todo!() }
    /// Sealed or torn.
    pub fn state(&self) -> State { todo!() }
    /// Runs in the order they were recorded.
    pub fn runs(&self) -> &[RunView] { todo!() }
    /// Every frame of the log in order, payloads, indexes and seals included.
    pub fn frames(&self) -> Result<Vec<FrameEntry>> { todo!() }
    /// A STEP record.
    pub fn step(&self, frame: &FrameEntry) -> Result<StepV1> { todo!() }
    /// A STATS record, checked; columns are read in place.
    pub fn stats(&self, frame: &FrameEntry) -> Result<StatsFrame> { todo!() }
    /// Coverage of a run: as recorded at its end, or folded from plan and statistics where it has no end.
    pub fn coverage(&self, run: &RunView) -> Result<CoverageV1> { todo!() }
    /// Decodes a payload and checks its hash.
    pub fn payload(&self, payload: u64) -> Result<Payload> { todo!() }
    /// Bytes read from the file so far: (payload frames, everything else).
    pub fn bytes_read(&self) -> (u64, u64) { todo!() }
}

/// A checked STATS record; cheap to clone.
#[derive(Debug, Clone)]
pub struct StatsFrame { body: Arc<rkyv::util::AlignedVec<64>> }
impl StatsFrame {
    /// The record, in place.
    pub fn record(&self) -> &crate::record::ArchivedStatsV1 { todo!() }
    /// The bytes that the record lies in, for columns without a copy.
    pub fn body(&self) -> &Arc<rkyv::util::AlignedVec<64>> { &self.body }
}

/// Decoded rows of one captured tensor.
#[derive(Debug)]
pub struct Payload {}
impl Payload {
    /// How many rows.
    pub fn rows(&self) -> usize { todo!() }
    /// Number format when captured.
    pub fn dtype(&self) -> Dtype { todo!() }
    /// The values of a row; `None` where there is no such row.
    pub fn row(&self, row: usize) -> Option<&[f32]> { todo!() }
}
