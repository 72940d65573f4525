//! A run while it is recorded: progress, signals, and what to do when the trace cannot be written.

use super::interrupt::Interrupt;
use super::note;
use crate::backend::Captured;
use crate::error::{Error, ErrorKind, Result};
use crate::file::FileStorage;
use crate::forward::{Generation, Observer, Request, StepReport, Wanted};
use crate::graph::SiteId;
use crate::recorder::{Outcome, Recorder, Summary, Untraced};
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
    /// Fingerprints of every step's logits in a pass without recording, where there was one.
    expected: Option<Vec<u64>>,
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
    /// What the logits are to those of a pass without recording.
    pub untraced: Untraced,
}

impl Recording {
    /// Records what `request` comes to; without recording, its steps' logits had the fingerprints `expected`.
    pub fn new(
        recorder: Recorder<FileStorage>,
        request: &Request<'_>,
        interrupt: Interrupt,
        on_write_error: OnWriteError,
        expected: Option<Vec<u64>>,
    ) -> Self {
        Recording {
            recorder,
            on_write_error,
            interrupt,
            bar: progress(request),
            steps: request.generate.max(1),
            generation: Generation { tokens: Vec::new(), fingerprints: Vec::new() },
            keep_tokens: request.generate > 0,
            expected,
            lost: None,
        }
    }

    /// Ends the recording of a run that came to `generated`, and seals the file.
    ///
    /// # Errors
    /// What ended the run; what ended the recording, where the run is not to go on without it.
    pub fn finish(mut self, generated: Result<Generation>) -> Result<Recorded> {
        self.bar.finish_and_clear();
        let untraced = compared(self.expected.as_deref(), &self.generation.fingerprints);
        self.recorder.set_untraced(untraced);
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
                let interrupted = outcome == Outcome::Interrupted;
                Ok(Recorded { generation: self.generation, summary, interrupted, untraced })
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

/// Every step that was recorded, against the same step of a pass without recording.
fn compared(expected: Option<&[u64]>, recorded: &[u64]) -> Untraced {
    match expected {
        Some(expected) if !recorded.is_empty() => {
            if expected.starts_with(recorded) {
                Untraced::Equal
            } else {
                Untraced::Different
            }
        }
        _ => Untraced::NotCompared,
    }
}

fn progress(request: &Request<'_>) -> ProgressBar {
    let bar = ProgressBar::new(request.generate.max(1) as u64);
    let style = ProgressStyle::with_template("recording {bar:30} step {pos}/{len} {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_that_differs_is_a_difference_and_no_step_is_no_comparison() {
        let expected = Some(&[1, 2, 3][..]);
        assert_eq!(compared(expected, &[1, 2, 3]), Untraced::Equal);
        assert_eq!(compared(expected, &[1, 2]), Untraced::Equal, "the run was interrupted");
        assert_eq!(compared(expected, &[1, 2, 4]), Untraced::Different);
        assert_eq!(compared(expected, &[1, 2, 3, 4]), Untraced::Different);
        assert_eq!(compared(expected, &[]), Untraced::NotCompared);
        assert_eq!(compared(None, &[1]), Untraced::NotCompared);
    }
}
