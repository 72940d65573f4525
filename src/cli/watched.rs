//! A recorder that stops at a signal.

use super::interrupt::Interrupt;
use crate::backend::Captured;
use crate::error::Result;
use crate::file::FileStorage;
use crate::forward::{Observer, StepReport, Wanted};
use crate::graph::SiteId;
use crate::recorder::Recorder;
use std::ops::Range;

/// Hands everything to the recorder, and asks before each capture whether somebody wants it to end.
pub(super) struct Watched {
    pub(super) recorder: Recorder<FileStorage>,
    pub(super) interrupt: Interrupt,
}

impl Observer for Watched {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        self.recorder.wants(site, positions)
    }

    fn capture(&mut self, step: u32, site: SiteId, first_position: usize, rows: Captured) -> Result<()> {
        self.interrupt.check()?;
        self.recorder.capture(step, site, first_position, rows)
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.recorder.step(report)
    }
}
