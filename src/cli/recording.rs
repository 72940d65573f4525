//! A run while it is recorded: progress, signals, and what to do when the trace cannot be written.

use super::interrupt::Interrupt;
use super::note;
use crate::backend::Captured;
use crate::error::{Error, ErrorKind, Result};
use crate::file::FileStorage;
use crate::forward::{Generation, Observer, Request, StepReport, Wanted};
use crate::graph::SiteId;
use crate::recorder::{Outcome, Recorder, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::Range;

/// What a failed write of the trace does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnWriteError {
    /// The run ends with the error (status 2)
    Fail,
    /// Generation goes on without being recorded (status 3)
    Continue,
}

/// A recorder that shows progress, stops at a signal, and may be lost on the way.
pub struct Recording {
    recorder: Recorder<FileStorage>,
    on_write_error: OnWriteError,
    interrupt: Interrupt,
    bar: ProgressBar,
    steps: usize,
    /// What was generated so far.
    generation: Generation,
    keep_tokens: bool,
    /// The write error that the run outlived.
    lost: Option<Error>,
}

/// How a recorded run came out.
pub struct Recorded {
    /// What was generated.
    pub generation: Generation,
    /// What the file holds; why it holds no end of this run, where the run went on without it.
    pub summary: Result<Summary>,
    /// Whether a signal ended the run.
    pub interrupted: bool,
}

impl Recording {
    /// Records what `request` comes to.
    pub fn new(
        recorder: Recorder<FileStorage>,
        request: &Request<'_>,
        interrupt: Interrupt,
        on_write_error: OnWriteError,
    ) -> Self {
        Recording {
            recorder,
            on_write_error,
            interrupt,
            bar: progress(request),
            steps: request.generate.max(1),
            generation: Generation { tokens: Vec::new(), fingerprints: Vec::new() },
            keep_tokens: request.generate > 0,
            lost: None,
        }
    }

    /// Ends the recording of a run that came to `generated`, and seals the file.
    ///
    /// # Errors
    /// What ended the run; what ended the recording, where the run is not to go on without it.
    pub fn finish(self, generated: Result<Generation>) -> Result<Recorded> {
        self.bar.finish_and_clear();
        let outcome = generated.as_ref().map_or_else(Outcome::of, |_| Outcome::Finished);
        let summary = match self.lost {
            Some(error) => Err(error),
            None => self.recorder.finish(&outcome),
        };
        if let (Outcome::Failed(_), Err(error)) = (&outcome, generated) {
            return Err(error);
        }
        match summary {
            Err(error) if self.on_write_error == OnWriteError::Fail || error.kind() != ErrorKind::Environment => {
                Err(error)
            }
            summary => {
                Ok(Recorded { generation: self.generation, summary, interrupted: outcome == Outcome::Interrupted })
            }
        }
    }

    /// Handles what the recorder said: an error ends the run, or from now on nothing is recorded.
    fn recorded(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if self.on_write_error == OnWriteError::Continue && error.kind() == ErrorKind::Environment => {
                self.bar.suspend(|| {
                    note(&format!("error: {error}"));
                    note("the run goes on and is not recorded any more");
                });
                self.lost = Some(error);
                Ok(())
            }
            result => result,
        }
    }
}

impl Observer for Recording {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        if self.lost.is_some() { None } else { self.recorder.wants(site, positions) }
    }

    fn capture(&mut self, step: u32, site: SiteId, first_position: usize, rows: Captured) -> Result<()> {
        self.interrupt.check()?;
        if self.lost.is_some() {
            return Ok(());
        }
        let result = self.recorder.capture(step, site, first_position, rows);
        self.recorded(result)
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.bar.inc(1);
        self.generation.fingerprints.push(report.logits_fingerprint);
        if self.keep_tokens {
            self.generation.tokens.push(report.next_token);
        }
        if self.lost.is_none() {
            let result = self.recorder.step(report);
            self.recorded(result)?;
        }
        // After the last step there is nothing left to interrupt.
        if self.generation.fingerprints.len() < self.steps { self.interrupt.check() } else { Ok(()) }
    }
}

fn progress(request: &Request<'_>) -> ProgressBar {
    let bar = ProgressBar::new(request.generate.max(1) as u64);
    let style = ProgressStyle::with_template("recording {bar:30} step {pos}/{len} {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
