//! Takes what a forward pass shows and appends it to a trace: statistics and values off the inference thread, frames
//! in forward order, memory bounded by a budget that blocks the forward pass rather than dropping anything.

mod budget;
mod gather;
mod joined;
mod known;
mod ledger;
mod pack;
mod spare;
mod weights;

use crate::backend::Captured;
use crate::capture::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Storage, Writer};
use crate::forward::{Observer, StepReport, Wanted};
use crate::graph::SiteId;
use crate::record::{CoverageV1, EndV1, RunV1};
use budget::Budget;
use gather::{Gather, Group};
use known::Known;
use ledger::Ledger;
use pack::{Capture, Job, Packed};
use spare::Spare;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use weights::Written;

pub use ledger::now_us;
pub use weights::{Weights, expected_weight_bytes, record_weights, weight_elements};

/// Raw bytes that may wait between the forward pass and the file.
const BUDGET_BYTES: usize = 256 << 20;
/// Which part of the budget captures may hold beside it while they are gathered: 256 KiB
/// (docs/decisions/rows-of-a-layer.md).
const GATHERED_PART: usize = 1024;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Finished,
    /// A signal ended it.
    Interrupted,
    /// An error ended it.
    Failed(String),
}

impl Outcome {
    /// How a run ended that `error` ended.
    pub fn of(error: &Error) -> Self {
        if error.kind() == ErrorKind::Interrupted { Outcome::Interrupted } else { Outcome::Failed(error.to_string()) }
    }
}

/// What logits of a pass without recording are to those that were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Untraced {
    /// There was no such pass.
    #[default]
    NotCompared = 0,
    /// Bit for bit the same in every step.
    Equal = 1,
    /// Different in some step.
    Different = 2,
}

impl Untraced {
    /// The name in tables and reports.
    pub fn name(self) -> &'static str {
        match self {
            Untraced::NotCompared => "not_compared",
            Untraced::Equal => "equal",
            Untraced::Different => "different",
        }
    }
}

/// What a finished recording holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Steps.
    pub steps: u32,
    /// Statistics rows.
    pub rows: u64,
    /// Payload frames.
    pub payloads: u64,
    /// Raw bytes of the kept tensors.
    pub tensor_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Hash of what was captured.
    pub content_root: [u8; 32],
}

/// Records one run into a trace.
pub struct Recorder<S: Storage> {
    plan: Arc<Plan>,
    jobs: Option<Sender<Job>>,
    next: u64,
    gather: Gather,
    budget: Arc<Budget>,
    failure: Arc<Mutex<Option<Error>>>,
    packers: Vec<JoinHandle<()>>,
    ledger: Option<JoinHandle<Ledger<S>>>,
    untraced: Untraced,
}

impl<S: Storage + 'static> Recorder<S> {
    /// Begins `run` in the file of `writer`; `packers` threads compute statistics and compress.
    pub fn begin(writer: Writer<S>, run: &RunV1, plan: Plan, packers: usize) -> Result<Self> {
        Self::begin_within(BUDGET_BYTES, writer, run, plan, packers)
    }

    /// [`Recorder::begin`] with a budget of its own: raw bytes that may wait between the forward pass and the file.
    pub fn begin_within(budget: usize, mut writer: Writer<S>, run: &RunV1, plan: Plan, packers: usize) -> Result<Self> {
        let ordinal = begun(&mut writer, run, &plan)?;
        Self::go_on(budget, writer, ordinal, plan, packers, &Written::nothing())
    }

    /// [`Recorder::begin`] with the model's weights before everything else. Where they cannot be recorded, the run is
    /// ended and the file sealed.
    pub fn begin_with(
        weights: Weights<'_>,
        mut writer: Writer<S>,
        run: &RunV1,
        plan: Plan,
        packers: usize,
    ) -> Result<Self> {
        let ordinal = begun(&mut writer, run, &plan)?;
        let mut written = Written::nothing();
        match weights.write(&mut writer, ordinal, &mut written) {
            Ok(()) => Self::go_on(BUDGET_BYTES, writer, ordinal, plan, packers, &written),
            Err(error) => {
                // The first error is the one to report.
                let ledger = Ledger::new(writer, ordinal, plan.record(), Arc::new(Spare::new(0)), &written);
                drop(ledger.finish(&plan, &Outcome::of(&error), Untraced::NotCompared));
                Err(error)
            }
        }
    }

    /// What the run's end is to say of a pass without recording.
    pub fn set_untraced(&mut self, untraced: Untraced) {
        self.untraced = untraced;
    }

    /// Goes on behind the RUN and PLAN frames of run `ordinal`, and the weights that were `written`.
    fn go_on(
        budget: usize,
        writer: Writer<S>,
        ordinal: u32,
        plan: Plan,
        packers: usize,
        written: &Written,
    ) -> Result<Self> {
        let plan = Arc::new(plan);
        let gather = Gather::new(budget / GATHERED_PART);
        let budget = Arc::new(Budget::new(budget));
        let known = Arc::new(Known::new(writer.known_hashes()));
        let failure = Arc::new(Mutex::new(None));
        let (jobs, waiting) = channel();
        let (packed, ready) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let spare = Arc::new(Spare::new(2 * packers.max(1)));
        let packers = (0..packers.max(1))
            .map(|_| {
                let (plan, known, spare) = (Arc::clone(&plan), Arc::clone(&known), Arc::clone(&spare));
                spawn_packer(Arc::clone(&waiting), packed.clone(), plan, known, spare)
            })
            .collect::<Result<Vec<_>>>()?;
        let ledger = Ledger::new(writer, ordinal, plan.record(), spare, written);
        let ledger = spawn_ledger(ledger, ready, Arc::clone(&budget), Arc::clone(&failure))?;
        let untraced = Untraced::NotCompared;
        Ok(Recorder {
            plan,
            jobs: Some(jobs),
            next: 0,
            gather,
            budget,
            failure,
            packers,
            ledger: Some(ledger),
            untraced,
        })
    }

    /// Waits for everything that was handed over, ends the run as `outcome` says, and seals the file.
    ///
    /// # Errors
    /// What the writer ran into; Usage, where nothing was captured at all.
    pub fn finish(mut self, outcome: &Outcome) -> Result<Summary> {
        // Rows of a step that was not completed; where they cannot be handed over, what failed is reported below.
        let sent = self.send_gathered();
        self.jobs = None;
        for packer in self.packers.drain(..) {
            packer.join().map_err(|_| Error::internal("a thread that packs values ended in a panic"))?;
        }
        let ledger = self.ledger.take().map(JoinHandle::join);
        let Some(Ok(ledger)) = ledger else {
            return Err(Error::internal("the thread that writes ended in a panic"));
        };
        if let Err(error) = sent.and_then(|()| self.failed()) {
            // The first error is the one to report. Where only a value could not be packed, the run is ended as failed;
            // a poisoned writer refuses that, and nothing is sealed.
            drop(ledger.finish(&self.plan, &Outcome::Failed(error.to_string()), self.untraced));
            return Err(error);
        }
        ledger.finish(&self.plan, outcome, self.untraced)
    }

    /// Hands over what is gathered.
    fn send_gathered(&mut self) -> Result<()> {
        match self.gather.take() {
            Some(Group { step, captures, bytes }) => {
                self.send(bytes, |number| Job::Rows { number, step, captures, bytes })
            }
            None => Ok(()),
        }
    }

    fn send(&mut self, bytes: usize, job: impl FnOnce(u64) -> Job) -> Result<()> {
        self.failed()?;
        self.budget.acquire(bytes);
        let job = job(self.next);
        self.next += 1;
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        sent.and_then(std::result::Result::ok).ok_or_else(|| Error::internal("the recorder's threads are gone"))
    }

    /// The error that stopped the writer, once.
    fn failed(&self) -> Result<()> {
        let failure = self.failure.lock().map_or_else(|poison| poison.into_inner().take(), |mut slot| slot.take());
        failure.map_or(Ok(()), Err)
    }
}

impl<S: Storage + 'static> Observer for Recorder<S> {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        let rows = self.plan.wanted(site, positions)?;
        Some(Wanted { rows, values: self.plan.keeps_tensor(site) })
    }

    fn capture(&mut self, step: u32, site: SiteId, first_position: usize, rows: Captured) -> Result<()> {
        let bytes = rows.held_bytes();
        let keep = self.plan.keeps_tensor(site);
        let layer = self.plan.record().sites.get(site as usize).map_or(-1, |site| site.layer);
        let layer = keep.then_some(layer);
        if !self.gather.accepts(step, layer, bytes) {
            self.send_gathered()?;
        }
        self.gather.add(step, layer, Capture { site, first_position, rows, keep }, bytes);
        if self.gather.is_full() { self.send_gathered() } else { Ok(()) }
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.send_gathered()?;
        let report = Box::new(report.clone());
        self.send(0, |number| Job::Step { number, report })
    }
}

/// Writes a run's identity and plan; gives its number.
fn begun<S: Storage>(writer: &mut Writer<S>, run: &RunV1, plan: &Plan) -> Result<u32> {
    let ordinal = writer.begin_run(run)?;
    writer.record(ordinal, 0, plan.record())?;
    Ok(ordinal)
}

fn spawn_packer(
    waiting: Arc<Mutex<Receiver<Job>>>,
    packed: Sender<Packed>,
    plan: Arc<Plan>,
    known: Arc<Known>,
    spare: Arc<Spare>,
) -> Result<JoinHandle<()>> {
    let work = move || {
        let mut packer = pack::Packer::new(&plan, &known, &spare);
        loop {
            let job = waiting.lock().map_or(None, |waiting| waiting.recv().ok());
            let Some(job) = job else { return };
            if packed.send(packer.pack(job)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("actrace-pack".to_owned())
        .spawn(work)
        .map_err(|cause| Error::new(ErrorKind::Environment, "cannot start a thread").because(cause))
}

/// Puts what the packers hand over back into order and writes it. After a failure it goes on receiving, so that the
/// forward pass is not blocked for ever, and writes nothing.
fn spawn_ledger<S: Storage + 'static>(
    mut ledger: Ledger<S>,
    ready: Receiver<Packed>,
    budget: Arc<Budget>,
    failure: Arc<Mutex<Option<Error>>>,
) -> Result<JoinHandle<Ledger<S>>> {
    let work = move || {
        let mut early = std::collections::BTreeMap::new();
        let mut next = 0;
        let mut failed = false;
        loop {
            let received = match ledger.due_in() {
                Some(wait) => ready.recv_timeout(wait),
                None => ready.recv().map_err(RecvTimeoutError::from),
            };
            let mut result = Ok(());
            match received {
                Err(RecvTimeoutError::Disconnected) => return ledger,
                Err(RecvTimeoutError::Timeout) => result = ledger.sync_if_due(),
                Ok(packed) => drop(early.insert(packed.number(), packed)),
            }
            while let Some(packed) = early.remove(&next) {
                next += 1;
                let bytes = packed.bytes();
                if !failed && result.is_ok() {
                    result = ledger.write(packed).and_then(|()| ledger.sync_if_due());
                }
                budget.release(bytes);
            }
            if let Err(error) = result {
                failed = true;
                if let Ok(mut slot) = failure.lock() {
                    *slot = Some(error);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("actrace-write".to_owned())
        .spawn(work)
        .map_err(|cause| Error::new(ErrorKind::Environment, "cannot start a thread").because(cause))
}

/// Rows expected and captured per site, in the form of a record.
fn coverage(plan: &Plan, positions: usize, captured: &[u64], with_tensor: &[u64]) -> CoverageV1 {
    use crate::capture::Status;
    let sites = &plan.record().sites;
    let selected = |site: SiteId| {
        let wanted = plan.positions_of(site);
        wanted.end.min(positions).saturating_sub(wanted.start) as u64
    };
    let mut coverage = CoverageV1::default();
    for (number, site) in sites.iter().enumerate() {
        let planned = site.status == Status::Captured as u8;
        let expected = if planned { selected(site.site) } else { 0 };
        let rows = captured.get(number).copied().unwrap_or(0);
        let complete = rows == expected;
        coverage.site.push(site.site);
        coverage.status.push(if complete { site.status } else { Status::Failed as u8 });
        coverage.reason.push(if complete {
            site.reason.clone()
        } else {
            format!("the run ended after {rows} of {expected} rows")
        });
        coverage.rows_expected.push(expected);
        coverage.rows_captured.push(rows);
        coverage.rows_with_tensor.push(with_tensor.get(number).copied().unwrap_or(0));
    }
    coverage
}

fn end(outcome: &Outcome, summary: &Summary, finished_us: i64, untraced: Untraced) -> EndV1 {
    let (status, error) = match outcome {
        Outcome::Finished => (0, String::new()),
        Outcome::Interrupted => (1, String::new()),
        Outcome::Failed(error) => (2, error.clone()),
    };
    EndV1 {
        status,
        error,
        finished_us,
        steps: summary.steps,
        rows: summary.rows,
        payloads: summary.payloads,
        tensor_bytes: summary.tensor_bytes,
        content_root: summary.content_root,
        untraced: untraced as u8,
    }
}
