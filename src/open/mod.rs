//! Reading a trace: opened by its index, records on demand, payloads only when asked for.

mod append;
mod decoded;
mod directory;
mod fault;
mod follow;
mod input;
mod inventory;
mod naming;
mod payload;
mod payload_directory;
mod recover;
mod reference;
mod set;
mod stats;
mod verify;
mod walk;

pub use append::append;
pub use directory::FrameEntry;
pub use fault::{Cause, Fault};
pub use follow::Follow;
pub use input::{Input, Source};
pub use payload::Payload;
pub use recover::{Recovery, recover};
pub use reference::{StoredRow, TensorReference};
pub use set::{RunRef, TraceSet};
pub use stats::StatsFrame;
pub use verify::{Verification, verify};
pub use walk::State;

use crate::error::{Error, ErrorKind, Result};
use crate::file::{FileHeader, Kind};
use crate::record::{CoverageV1, EndV1, LossV1, PayloadV1, PlanV1, Record, RunV1, StepV1, WeightV1};
use decoded::Decoded;
use directory::Directory;
use payload_directory::PayloadDirectory;
use std::path::Path;
use std::sync::{Arc, OnceLock};

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
    /// WEIGHT frames in the order of recording; none where the run has no weights.
    pub weights: Vec<FrameEntry>,
    coverage: Option<FrameEntry>,
    losses: Vec<FrameEntry>,
}

impl RunView {
    /// The run's id as 32 hexadecimal digits.
    pub fn id(&self) -> String {
        hex(&self.identity.run_id)
    }

    /// How many things it dropped; [`Trace::losses`] reads them.
    pub fn losses(&self) -> usize {
        self.losses.len()
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An open trace file. Shared freely between threads.
#[derive(Debug)]
pub struct Trace {
    input: Input,
    directory: Directory,
    runs: Vec<RunView>,
    payloads: OnceLock<PayloadDirectory>,
    decoded: Decoded,
}

impl Trace {
    /// Opens `path`: by its index if it is sealed, else by walking from frame to frame. What is whole in a file that
    /// is not sealed is readable, also while a writer is at work; [`Trace::state`] says what the file is. Payloads are
    /// neither read nor checked.
    ///
    /// # Errors
    /// Foreign, where the file is no trace; Damaged, where its header is; Environment.
    pub fn open(path: &Path) -> Result<Arc<Trace>> {
        Self::of(Input::open(path)?)
    }

    /// Opens what `input` reads.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn of(input: Input) -> Result<Arc<Trace>> {
        let mut directory = Directory::read(&input)?;
        let mut runs = runs(&input, &directory);
        if directory.state == State::Sealed && runs.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged) {
            directory = Directory::damaged(&input)?;
            runs = self::runs(&input, &directory);
        }
        Ok(Arc::new(Trace { runs: runs?, input, directory, payloads: OnceLock::new(), decoded: Decoded::default() }))
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// The file's identity.
    pub fn header(&self) -> &FileHeader {
        self.input.header()
    }

    /// Sealed, torn, tail lost or damaged.
    pub fn state(&self) -> State {
        self.directory.state
    }

    /// Stretches of the file that hold no whole frame and are not the beginning of one, first and end.
    pub fn holes(&self) -> &[(u64, u64)] {
        &self.directory.holes
    }

    /// Where the last whole frame ends.
    pub fn end(&self) -> u64 {
        self.directory.end
    }

    /// Runs in the order they were recorded.
    pub fn runs(&self) -> &[RunView] {
        &self.runs
    }

    /// Every frame of the log in order, payloads, indexes and seals included.
    pub fn frames(&self) -> Result<Vec<FrameEntry>> {
        let mut frames = self.directory.frames.clone();
        frames.extend(self.payloads()?.entries());
        frames.sort_by_key(|frame| frame.seq);
        Ok(frames)
    }

    /// A STEP record.
    pub fn step(&self, frame: &FrameEntry) -> Result<StepV1> {
        load(&self.input, frame)
    }

    /// A STATS record, checked; columns are read in place.
    pub fn stats(&self, frame: &FrameEntry) -> Result<StatsFrame> {
        StatsFrame::new(body(&self.input, frame)?).map_err(|error| error.at(frame.offset).in_file(self.path()))
    }

    /// A WEIGHT record.
    pub fn weight(&self, frame: &FrameEntry) -> Result<WeightV1> {
        load(&self.input, frame)
    }

    /// Coverage of a run: as recorded at its end, or folded from plan and statistics where it has no end.
    pub fn coverage(&self, run: &RunView) -> Result<CoverageV1> {
        match &run.coverage {
            Some(frame) => load(&self.input, frame),
            None => self.folded_coverage(run),
        }
    }

    fn folded_coverage(&self, run: &RunView) -> Result<CoverageV1> {
        let sites = &run.plan.sites;
        let mut coverage = CoverageV1 {
            site: sites.iter().map(|site| site.site).collect(),
            status: sites.iter().map(|site| site.status).collect(),
            reason: sites.iter().map(|site| site.reason.clone()).collect(),
            rows_expected: vec![0; sites.len()],
            rows_captured: vec![0; sites.len()],
            rows_with_tensor: vec![0; sites.len()],
        };
        for frame in run.steps.iter().flat_map(|step| &step.stats) {
            let stats = self.stats(frame)?;
            let record = stats.record();
            for (site, payload) in record.site.iter().zip(record.payload.iter()) {
                let site = site.to_native() as usize;
                if let Some(rows) = coverage.rows_captured.get_mut(site) {
                    *rows += 1;
                    coverage.rows_with_tensor[site] += u64::from(payload.to_native() != 0);
                }
            }
        }
        // A run without an end expects what its committed steps hold; what a later step would add is unknown.
        coverage.rows_expected.clone_from(&coverage.rows_captured);
        Ok(coverage)
    }

    /// What a run dropped, and why.
    pub fn losses(&self, run: &RunView) -> Result<Vec<LossV1>> {
        run.losses.iter().map(|frame| load(&self.input, frame)).collect()
    }

    /// A payload, decoded and held against its hash. The last few are kept, 64 MiB of them.
    ///
    /// # Errors
    /// Damaged, where the file has no such payload or its bytes changed.
    pub fn payload(&self, payload: u64) -> Result<Arc<Payload>> {
        self.decoded.payload(payload, || self.decode(payload))
    }

    fn decode(&self, payload: u64) -> Result<Payload> {
        let missing = || Error::damaged(format!("the file has no payload {payload}")).in_file(self.path());
        let offset = self.payloads()?.offset(payload).ok_or_else(missing)?;
        let place = |error: Error| error.at(offset).in_file(self.path());
        let header = self.input.frame_header(offset, self.input.length()?)?;
        if header.kind != Kind::Payload || header.payload != payload {
            return Err(place(Error::damaged("the payload index names another frame")));
        }
        let record = PayloadV1::decode(&self.input.body(&header)?).map_err(place)?;
        Payload::decode(&record).map_err(place)
    }

    /// Bytes read from the file so far: of payload frames, and of everything else.
    pub fn bytes_read(&self) -> (u64, u64) {
        self.input.bytes_read()
    }

    fn payloads(&self) -> Result<&PayloadDirectory> {
        if let Some(payloads) = self.payloads.get() {
            return Ok(payloads);
        }
        let payloads = PayloadDirectory::read(&self.input, &self.directory)?;
        Ok(self.payloads.get_or_init(|| payloads))
    }
}

fn body(input: &Input, frame: &FrameEntry) -> Result<rkyv::util::AlignedVec<64>> {
    let header = input.frame_header(frame.offset, input.length()?)?;
    if (header.seq, header.kind) != (frame.seq, frame.kind) {
        return Err(Error::damaged("the index names another frame").at(frame.offset).in_file(input.path()));
    }
    input.body(&header)
}

fn load<R: Record>(input: &Input, frame: &FrameEntry) -> Result<R> {
    R::decode(&body(input, frame)?).map_err(|error| error.at(frame.offset).in_file(input.path()))
}

/// Folds the log into runs. A step without its commit frame is no step yet.
fn runs(input: &Input, directory: &Directory) -> Result<Vec<RunView>> {
    let mut runs: Vec<RunView> = Vec::new();
    let mut open_step: Vec<FrameEntry> = Vec::new();
    for frame in &directory.frames {
        if frame.kind == Kind::Run {
            open_step.clear();
            runs.push(begun(input, frame)?);
            continue;
        }
        let Some(run) = runs.last_mut().filter(|run| frame.run == Some(run.ordinal)) else {
            continue;
        };
        match frame.kind {
            Kind::Plan => run.plan = Arc::new(load(input, frame)?),
            Kind::Stats => open_step.push(frame.clone()),
            Kind::Step => {
                // Where a commit mark was lost, the rows of its step are nobody's: not the next step's.
                open_step.retain(|stats| stats.step == frame.step);
                let stats = std::mem::take(&mut open_step);
                run.steps.push(StepFrames { step: frame.step, commit: frame.clone(), stats });
            }
            Kind::Coverage => run.coverage = Some(frame.clone()),
            Kind::Loss => run.losses.push(frame.clone()),
            Kind::Weight => run.weights.push(frame.clone()),
            Kind::End => run.end = Some(load(input, frame)?),
            _ => {}
        }
    }
    Ok(runs)
}

fn begun(input: &Input, frame: &FrameEntry) -> Result<RunView> {
    Ok(RunView {
        ordinal: frame.run.unwrap_or(crate::file::NO_RUN),
        identity: Arc::new(load(input, frame)?),
        plan: Arc::new(PlanV1 { sites: Vec::new(), weights: Vec::new() }),
        end: None,
        steps: Vec::new(),
        weights: Vec::new(),
        coverage: None,
        losses: Vec::new(),
    })
}
