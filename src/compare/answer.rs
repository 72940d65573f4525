//! What the difference of two runs means for the answer: how far apart the distributions over next tokens are, where the
//! greedy choice flips, and how that grows from step to step.

use super::logits::LogitsMetrics;
use super::pairing::{Pairing, RowPair, SitePair};
use super::row::{Detail, RowComparer};
use crate::error::Result;
use crate::forward::StepReport;
use crate::open::RunRef;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Rows of logits that are compared at a time by one thread.
const CHUNK: usize = 64;

/// The phase of a step that evaluates the prompt.
const PREFILL: u8 = 0;

/// Two rows of logits, compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerRow {
    /// Position.
    pub position: u32,
    /// The reference's step that evaluated it.
    pub reference_step: u32,
    /// The target's step that evaluated it.
    pub target_step: u32,
    /// `sum p ln(p / q)` over softmax, p of the reference, in nats.
    pub kl_divergence: f64,
    /// Rank of the reference's choice in the target, from 0: anything else is a flip.
    pub rank: u32,
    /// Largest less second largest logit of the reference; `None` where the rows are equal and were not read.
    pub reference_gap: Option<f64>,
    /// Largest less second largest logit of the target; `None` where the rows are equal and were not read.
    pub target_gap: Option<f64>,
}

impl AnswerRow {
    /// Whether both choose the same token.
    pub fn top1_equal(&self) -> bool {
        self.rank == 0
    }
}

/// Logits of all rows that one step of the target evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerStep {
    /// Step of the target, 0 is the prefill.
    pub step: u32,
    /// Rows that were compared.
    pub rows: u64,
    /// Largest divergence of a row.
    pub kl_max: f64,
    /// Rows whose choices differ.
    pub flips: u64,
    /// The step's last row, which chooses the next token.
    pub last: AnswerRow,
}

/// A token that two runs chose after equal tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Position after which it was chosen.
    pub position: u32,
    /// The reference's step.
    pub reference_step: u32,
    /// The target's step.
    pub target_step: u32,
    /// The reference's choice.
    pub reference: u32,
    /// The target's choice.
    pub target: u32,
}

/// What two runs answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Rows of logits in forward order of positions, compared by values or known to be equal.
    pub rows: Vec<AnswerRow>,
    /// Rows of logits that differ and of which no values were kept, or whose values are nonfinite.
    pub unknown_rows: u64,
    /// Choices that the runs themselves recorded after equal tokens.
    pub choices: u64,
    /// The first of them that differs.
    pub first_other_choice: Option<Chosen>,
    /// Compared positions that one run evaluated in its prefill and the other in decode steps.
    pub prefill_against_decode: Vec<u32>,
}

impl Answer {
    /// Compares the logits of `pairing`, and what both runs chose.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(pairing: &Pairing) -> Result<Self> {
        let logits = pairing.sites.iter().find(|site| site.point == "logits");
        let (reference, target) = (steps(&pairing.reference)?, steps(&pairing.target)?);
        let shared = shared(pairing);
        let mut answer = Answer { prefill_against_decode: mixed(&shared, &reference, &target), ..Answer::default() };
        for pair in shared.values() {
            let at = |steps: &Steps, step: u32| steps.get(&step).filter(|known| known.last == pair.position).copied();
            let both = at(&reference, pair.reference.step).zip(at(&target, pair.target.step));
            let Some((r, t)) = both.and_then(|(r, t)| r.next_token.zip(t.next_token)) else { continue };
            answer.choices += 1;
            if r != t && answer.first_other_choice.is_none() {
                let (reference_step, target_step) = (pair.reference.step, pair.target.step);
                let position = pair.position;
                answer.first_other_choice =
                    Some(Chosen { position, reference_step, target_step, reference: r, target: t });
            }
        }
        if let Some(site) = logits {
            let compared = compare(pairing, site)?;
            answer.unknown_rows = compared.iter().filter(|row| row.is_none()).count() as u64;
            answer.rows = compared.into_iter().flatten().collect();
        }
        Ok(answer)
    }

    /// The last compared row.
    pub fn last(&self) -> Option<&AnswerRow> {
        self.rows.last()
    }

    /// Mean divergence over rows, in nats; `None` of no row.
    pub fn kl_mean(&self) -> Option<f64> {
        let sum: f64 = self.rows.iter().map(|row| row.kl_divergence).sum();
        (!self.rows.is_empty()).then(|| sum / self.rows.len() as f64)
    }

    /// The first row of the largest divergence.
    pub fn kl_max(&self) -> Option<&AnswerRow> {
        self.rows.iter().reduce(|most, row| if row.kl_divergence > most.kl_divergence { row } else { most })
    }

    /// Rows whose greedy choices differ, in order.
    pub fn flips(&self) -> impl Iterator<Item = &AnswerRow> {
        self.rows.iter().filter(|row| !row.top1_equal())
    }

    /// The first row of the largest rank.
    pub fn worst_rank(&self) -> Option<&AnswerRow> {
        self.rows.iter().reduce(|most, row| if row.rank > most.rank { row } else { most })
    }

    /// The rows by step of the target, in order.
    pub fn steps(&self) -> Vec<AnswerStep> {
        let mut steps: BTreeMap<u32, AnswerStep> = BTreeMap::new();
        for row in &self.rows {
            let first = AnswerStep { step: row.target_step, rows: 0, kl_max: 0.0, flips: 0, last: *row };
            let step = steps.entry(row.target_step).or_insert(first);
            step.rows += 1;
            step.kl_max = step.kl_max.max(row.kl_divergence);
            step.flips += u64::from(!row.top1_equal());
            step.last = *row;
        }
        steps.into_values().collect()
    }
}

/// A step as the answer sees it.
#[derive(Debug, Clone, Copy)]
struct Step {
    phase: u8,
    /// Its last position.
    last: u32,
    /// The chosen token; `None` where no logits were seen.
    next_token: Option<u32>,
}

type Steps = BTreeMap<u32, Step>;

fn steps(run: &RunRef) -> Result<Steps> {
    let mut steps = Steps::new();
    for frames in &run.view().steps {
        let record = run.trace().step(&frames.commit)?;
        let Some(last) = record.position.last().copied() else { continue };
        let next_token = Some(record.next_token).filter(|token| *token != StepReport::NO_TOKEN);
        steps.insert(record.step, Step { phase: record.phase, last, next_token });
    }
    Ok(steps)
}

/// One compared pair of rows at each position, whatever its place: it knows the steps of both runs.
fn shared(pairing: &Pairing) -> BTreeMap<u32, RowPair> {
    pairing.sites.iter().flat_map(|site| &site.rows).map(|pair| (pair.position, *pair)).collect()
}

fn mixed(shared: &BTreeMap<u32, RowPair>, reference: &Steps, target: &Steps) -> Vec<u32> {
    let prefilled = |steps: &Steps, step: u32| steps.get(&step).map(|step| step.phase == PREFILL);
    let differs = |pair: &&RowPair| prefilled(reference, pair.reference.step) != prefilled(target, pair.target.step);
    shared.values().filter(differs).map(|pair| pair.position).collect()
}

/// Every row of logits; `None` where nothing can be said of it.
fn compare(pairing: &Pairing, site: &SitePair) -> Result<Vec<Option<AnswerRow>>> {
    let last = site.rows.last().map(|pair| pair.position);
    let chunk = |rows: &[RowPair]| {
        let mut comparer = RowComparer::new(pairing, Detail::default());
        rows.iter().map(|pair| row(&mut comparer, site, pair, last == Some(pair.position))).collect::<Result<Vec<_>>>()
    };
    let compared = site.rows.par_chunks(CHUNK).map(chunk).collect::<Result<Vec<_>>>()?;
    Ok(compared.into_iter().flatten().collect())
}

/// A pair of rows; equal ones are read only where `wanted`.
fn row(comparer: &mut RowComparer<'_>, site: &SitePair, pair: &RowPair, wanted: bool) -> Result<Option<AnswerRow>> {
    let kept = pair.reference.payload != 0 && pair.target.payload != 0;
    let equal = pair.reference.fingerprint == pair.target.fingerprint;
    let metrics = if kept && (wanted || !equal) {
        let (reference, target) = comparer.values(site, pair)?;
        LogitsMetrics::of(reference, target)
    } else {
        None
    };
    let finite = pair.reference.moments.count == u64::from(pair.reference.count);
    let known = metrics.is_some() || equal && finite;
    Ok(known.then(|| AnswerRow {
        position: pair.position,
        reference_step: pair.reference.step,
        target_step: pair.target.step,
        kl_divergence: metrics.map_or(0.0, |metrics| metrics.kl_divergence),
        rank: metrics.map_or(0, |metrics| metrics.rank),
        reference_gap: metrics.map(|metrics| metrics.reference_gap),
        target_gap: metrics.map(|metrics| metrics.target_gap),
    }))
}
