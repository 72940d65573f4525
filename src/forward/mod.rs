//! The traced forward pass: walks the graph over a backend and shows every tensor to an observer.

mod needs;
mod pass;
mod run;

pub use run::{Forward, Generation, Request};

use crate::backend::Captured;
use crate::error::Result;
use crate::graph::SiteId;
use std::ops::Range;

/// Why tokens are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The prompt, step 0.
    Prefill,
    /// One generated token.
    Decode,
}

impl Phase {
    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// One finished step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// 0 is the prefill.
    pub step: u32,
    /// Why these tokens.
    pub phase: Phase,
    /// Position of the first token.
    pub first_position: u32,
    /// The tokens evaluated.
    pub tokens: Vec<u32>,
    /// The greedy choice after the last of them.
    pub next_token: u32,
    /// Fingerprint of the last token's logits row.
    pub logits_fingerprint: u64,
    /// Wall-clock time of the step.
    pub elapsed: std::time::Duration,
}

/// What an observer wants of one site in one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Row numbers in the batch.
    pub rows: Range<usize>,
    /// Whether the values are wanted, not their statistics alone.
    pub values: bool,
}

impl StepReport {
    /// [`StepReport::next_token`] of a step whose logits were not seen: an import without them.
    pub const NO_TOKEN: u32 = u32::MAX;
}

/// Sees a run as it happens. Observing never changes a value.
pub trait Observer {
    /// What is wanted from `site` of a batch at `positions`; `None` (or no row) where nothing is. Asked once for every
    /// site before a batch is evaluated: what nobody wants and no later row needs is not computed.
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted>;

    /// Takes wanted rows of `site`, in ascending order; the first of them has position `first_position`.
    fn capture(&mut self, step: u32, site: SiteId, first_position: usize, rows: Captured) -> Result<()>;

    /// A step is complete: everything it captured was handed over before.
    fn step(&mut self, report: &StepReport) -> Result<()>;
}
