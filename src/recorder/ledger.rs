//! The ledger of one run: what the packers hand over, in forward order, is counted, hashed and written as frames.

use super::pack::{Content, Packed, Shown, Tensor};
use super::spare::Spare;
use super::weights::Written;
use super::{Outcome, Summary, Untraced, coverage, end};
use crate::capture::Plan;
use crate::error::{Error, Result};
use crate::file::{Storage, Writer};
use crate::forward::{Phase, StepReport};
use crate::graph::SiteId;
use crate::record::{PlanV1, StatsV1, StepV1};
use crate::stats::{RowStatistics, prefix_fingerprint};
use std::sync::Arc;
use std::time::Duration;

/// Rows of one statistics frame.
const STATS_ROWS: usize = 1 << 16;

/// Writes one run's frames and counts what it writes.
pub struct Ledger<S: Storage> {
    writer: Writer<S>,
    spare: Arc<Spare>,
    run: u32,
    stats: StatsV1,
    stats_frames: u32,
    payload_frames: u32,
    prefix: u64,
    /// Up to now.
    counts: Counts,
    /// Up to the end of the last complete step: what readers see, and so what the run's end counts.
    committed: Counts,
    payloads: u64,
}

/// What a run holds.
#[derive(Clone)]
struct Counts {
    steps: u32,
    positions: usize,
    rows: u64,
    tensor_bytes: u64,
    captured: Vec<u64>,
    with_tensor: Vec<u64>,
    content: blake3::Hasher,
}

impl<S: Storage> Ledger<S> {
    /// Goes on behind the RUN and PLAN frames of run `run` and the weights that were `written`; buffers of what is written
    /// become `spare`.
    pub fn new(writer: Writer<S>, run: u32, plan: &PlanV1, spare: Arc<Spare>, written: &Written) -> Self {
        let mut content = blake3::Hasher::new_derive_key("actrace 1 content root");
        for site in &plan.sites {
            content.update(&site.layer.to_le_bytes()).update(&(site.point.len() as u32).to_le_bytes());
            content.update(site.point.as_bytes()).update(&site.occurrence.to_le_bytes()).update(&[site.status]);
        }
        let zeros = vec![0; plan.sites.len()];
        let (captured, with_tensor) = (zeros.clone(), zeros);
        let tensor_bytes = written.value_bytes;
        let counts = Counts { steps: 0, positions: 0, rows: 0, tensor_bytes, captured, with_tensor, content };
        Ledger {
            writer,
            spare,
            run,
            stats: StatsV1::default(),
            stats_frames: 0,
            payload_frames: 0,
            prefix: 0,
            committed: counts.clone(),
            counts,
            payloads: written.payloads,
        }
    }

    /// Time until [`Ledger::sync_if_due`] has something to do, where time alone brings that about.
    pub fn due_in(&self) -> Option<Duration> {
        self.writer.due_in()
    }

    /// Hands what waited long enough to stable storage, as the writer's durability says.
    pub fn sync_if_due(&mut self) -> Result<()> {
        self.writer.sync_if_due()
    }

    /// Writes what one job came to.
    pub fn write(&mut self, packed: Packed) -> Result<()> {
        match packed {
            Packed::Step { report, .. } => self.step(&report),
            Packed::Rows { step, content, .. } => {
                self.stats.step = step;
                let Shown { tensors, hashed, payloads, kept_bytes } = content?;
                let places = self.payloads(step, payloads)?;
                self.counts.content.update(&hashed);
                self.counts.tensor_bytes += kept_bytes;
                tensors.iter().try_for_each(|tensor| self.tensor(tensor, &places))
            }
        }
    }

    /// Adds the statistics of a tensor, the rows of which are among those at `places`.
    fn tensor(&mut self, tensor: &Tensor, places: &[(u64, u32)]) -> Result<()> {
        for (row, statistics) in tensor.statistics.iter().enumerate() {
            let place = tensor.places.get(row).and_then(|place| places.get(*place as usize));
            let position = (tensor.first_position + row) as u32;
            self.row(tensor.site, position, statistics, place.copied().unwrap_or((0, 0)))?;
        }
        Ok(())
    }

    /// Stores payloads, each content once, and gives each row's payload number and row.
    fn payloads(&mut self, step: u32, contents: Vec<Content>) -> Result<Vec<(u64, u32)>> {
        let mut places = Vec::new();
        for content in contents {
            let (rows, blake3) = (content.record.rows, content.record.blake3);
            self.counts.content.update(&blake3);
            let number = match self.writer.known_payload(&blake3) {
                Some(number) => number,
                None => {
                    self.payload_frames += 1;
                    self.payloads += 1;
                    let mut content = content.made(&self.spare)?;
                    let number = self.writer.summed_payload(self.run, step, &mut content.record, content.crc)?;
                    self.spare.give(content.record.bytes);
                    number
                }
            };
            places.extend((0..rows).map(|row| (number, row)));
        }
        Ok(places)
    }

    fn row(&mut self, site: SiteId, position: u32, row: &RowStatistics, place: (u64, u32)) -> Result<()> {
        self.stats.push(site, position, row, place);
        self.counts.rows += 1;
        if let Some(captured) = self.counts.captured.get_mut(site as usize) {
            *captured += 1;
            self.counts.with_tensor[site as usize] += u64::from(place.0 != 0);
        }
        if self.stats.site.len() >= STATS_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.stats.site.is_empty() {
            return Ok(());
        }
        self.stats_frames += 1;
        let stats = std::mem::take(&mut self.stats);
        self.writer.stats(self.run, &stats)?;
        self.stats.step = stats.step;
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.flush()?;
        let rows = report.tokens.len();
        let mut prefix = Vec::with_capacity(rows);
        for token in &report.tokens {
            self.prefix = prefix_fingerprint(self.prefix, *token);
            prefix.push(self.prefix);
            self.counts.content.update(&token.to_le_bytes());
        }
        let content = &mut self.counts.content;
        content.update(&report.next_token.to_le_bytes()).update(&report.logits_fingerprint.to_le_bytes());
        let record = StepV1 {
            step: report.step,
            phase: match report.phase {
                Phase::Prefill => 0,
                Phase::Decode => 1,
            },
            sequence: vec![0; rows],
            position: (report.first_position..).take(rows).collect(),
            token: report.tokens.clone(),
            prefix,
            next_token: report.next_token,
            logits_fingerprint: report.logits_fingerprint,
            elapsed_us: u64::try_from(report.elapsed.as_micros()).unwrap_or(u64::MAX),
            stats_frames: std::mem::take(&mut self.stats_frames),
            payload_frames: std::mem::take(&mut self.payload_frames),
        };
        self.counts.positions += rows;
        self.counts.steps += 1;
        self.writer.record(self.run, report.step, &record)?;
        self.committed.clone_from(&self.counts);
        self.writer.step_ended()
    }

    /// Ends the run and seals the file. Rows of a step that was not completed count nowhere: no reader shows them.
    pub fn finish(mut self, plan: &Plan, outcome: &Outcome, untraced: Untraced) -> Result<Summary> {
        let committed = &self.committed;
        let mut summary = Summary {
            steps: committed.steps,
            rows: committed.rows,
            payloads: self.payloads,
            tensor_bytes: committed.tensor_bytes,
            file_bytes: 0,
            content_root: *committed.content.finalize().as_bytes(),
        };
        let nothing = summary.rows == 0 && *outcome == Outcome::Finished;
        let failed = Outcome::Failed("nothing was captured".to_owned());
        let outcome = if nothing { &failed } else { outcome };
        let coverage = coverage(plan, committed.positions, &committed.captured, &committed.with_tensor);
        self.writer.record(self.run, 0, &coverage)?;
        self.writer.record(self.run, 0, &end(outcome, &summary, now_us(), untraced))?;
        self.writer.seal()?;
        summary.file_bytes = self.writer.file_bytes();
        if nothing {
            return Err(Error::usage(
                "nothing was captured: the selection names no row of this run; select more points, layers or positions",
            ));
        }
        Ok(summary)
    }
}

/// Microseconds since 1970-01-01 UTC.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
