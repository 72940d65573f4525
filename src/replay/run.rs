//! A replay as a run of its own: every site that follows from what was recorded, in forward order, as one step.

use super::{Derivation, Emulation, Evaluation, Recorded, derive};
use crate::backend::{Arithmetic, Captured, Choice};
use crate::capture::Plan;
use crate::error::{Error, Result};
use crate::forward::{Observer, Phase, StepReport};
use crate::graph::Graph;
use crate::model::Model;
use crate::tensor::Rows;
use std::time::Instant;

/// Why a point of a replay is not there.
const NOT_RECORDED: &str = "input not recorded";

/// A replay that is about to be made.
#[derive(Debug)]
pub struct Replay<'a> {
    model: &'a Model,
    graph: &'a Graph,
    recorded: &'a Recorded,
    arithmetic: Arithmetic,
    derivations: Vec<Derivation>,
}

impl<'a> Replay<'a> {
    /// What `plan` asks for, as far as it follows from `recorded`; the rest becomes unsupported in it, with a reason.
    ///
    /// # Errors
    /// Unsupported, where the run rounds in two ways, so that no one replay is right for all its rows; usage, where
    /// nothing is left.
    pub fn new(
        model: &'a Model,
        graph: &'a Graph,
        recorded: &'a Recorded,
        emulation: &Emulation,
        plan: &mut Plan,
    ) -> Result<Self> {
        let [arithmetic] = emulation.arithmetics[..] else {
            let message = "products of this run round in two ways, by the number of rows: give --semantics";
            return Err(Error::unsupported(message));
        };
        let positions = plan.positions();
        let mut derivations = Vec::new();
        for site in &graph.sites {
            if plan.wanted(site.id, positions.clone()).is_none() {
                continue;
            }
            let derivation = derive(graph, recorded, site.id);
            let covers = |derivation: &Derivation| {
                let mut ranges = derivation.positions.iter();
                ranges.any(|range| range.start <= positions.start && positions.end <= range.end)
            };
            match derivation.filter(covers) {
                Some(mut derivation) => {
                    derivation.positions = vec![positions.clone()];
                    derivations.push(derivation);
                }
                None => plan.refuse(site.id, NOT_RECORDED),
            }
        }
        if derivations.is_empty() {
            return Err(Error::usage(
                "nothing can be replayed: of no selected point the inputs were recorded at every selected position",
            ));
        }
        Ok(Replay { model, graph, recorded, arithmetic, derivations })
    }

    /// How many sites are made again.
    pub fn sites(&self) -> usize {
        self.derivations.len()
    }

    /// Makes every site again and shows it to `observer`, in forward order, as the prefill of all recorded tokens.
    ///
    /// # Errors
    /// Those of reading the trace and of the observer.
    pub fn run(&self, observer: &mut dyn Observer, done: &dyn Fn()) -> Result<()> {
        let start = Instant::now();
        let mut logits = None;
        for derivation in &self.derivations {
            let mut evaluation = Evaluation::new(self.model, self.graph, self.recorded, derivation, self.arithmetic)?;
            for piece in evaluation.pieces() {
                let rows = evaluation.rows(piece.clone())?;
                if derivation.site as usize + 1 == self.graph.sites.len() && piece.end == self.recorded.tokens().len() {
                    logits = last(&rows);
                }
                observer.capture(0, derivation.site, piece.start, Captured::Host(rows))?;
            }
            done();
        }
        observer.step(&self.report(logits, start)?)
    }

    /// The choice is that of the logits made again; where they were not, of the run.
    fn report(&self, logits: Option<Choice>, start: Instant) -> Result<StepReport> {
        let run = self.recorded.run();
        let choice = match (logits, run.view().steps.last()) {
            (Some(choice), _) => choice,
            (None, Some(step)) => {
                let step = run.trace().step(&step.commit)?;
                Choice { token: step.next_token, fingerprint: step.logits_fingerprint }
            }
            (None, None) => return Err(Error::usage("the run has no complete step: there is nothing to replay")),
        };
        Ok(StepReport {
            step: 0,
            phase: Phase::Prefill,
            first_position: 0,
            tokens: self.recorded.tokens().to_vec(),
            next_token: choice.token,
            logits_fingerprint: choice.fingerprint,
            elapsed: start.elapsed(),
        })
    }
}

fn last(rows: &Rows) -> Option<Choice> {
    rows.len().checked_sub(1).map(|row| Choice::of(rows.row(row)))
}
