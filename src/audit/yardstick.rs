//! Recorded rows against those that the yardstick makes, under the declared rounding or another.

use super::{Bound, Class, Finding, Judgement, LocalError};
use crate::backend::{Arithmetic, CacheType, ProductRounding, ReferenceWeight};
use crate::error::Result;
use crate::graph::{Graph, Operation, Site};
use crate::model::WeightKey;
use crate::replay::{Alternative, Derivation, Emulation, Evaluation, Recorded, alternatives};

/// How far beyond the limits a known rounding may stay that explains a difference: engines add in other orders too.
const NEAR: f64 = 10.0;

/// How much closer than the declared rounding it has to come: one that changes nothing explains nothing.
const CLOSER: f64 = 1.0 / 3.0;

/// A run, its graph, its rounding, and where weights come from.
pub(super) struct Yardstick<'a, L> {
    pub(super) graph: &'a Graph,
    pub(super) recorded: &'a Recorded,
    pub(super) emulation: &'a Emulation,
    pub(super) load: L,
}

impl<L: Fn(WeightKey) -> Result<ReferenceWeight>> Yardstick<'_, L> {
    /// Ready to make the rows of a derivation.
    pub(super) fn evaluation<'e>(&'e self, derivation: &'e Derivation, rounding: Arithmetic) -> Result<Evaluation<'e>> {
        Evaluation::with_weights(self.graph, self.recorded, derivation, rounding, &self.load)
    }

    /// The error of every row that `evaluation` makes.
    pub(super) fn measure(&self, mut evaluation: Evaluation<'_>, derivation: &Derivation) -> Result<LocalError> {
        let mut error = LocalError::default();
        for piece in evaluation.pieces() {
            let expected = evaluation.rows(piece.clone())?;
            let recorded = self.recorded.values(derivation.site, piece.clone())?;
            error.add(piece.start, &expected, &recorded);
        }
        Ok(error)
    }

    /// Judges `site`, whose faults are of `class`: right, right by another rounding, or wrong; undecided where a chain
    /// rounds what was not recorded. Yields the errors of a wrong one.
    pub(super) fn judge(
        &self,
        site: &Site,
        derivation: &Derivation,
        class: Class,
        finding: &mut Finding,
    ) -> Result<Option<LocalError>> {
        if self.rounds_unrecorded(derivation) {
            finding.judgement = Judgement::Undecided("it rounds what was not recorded");
            return Ok(None);
        }
        let bound = Bound::of(self.made(derivation).map(|site| site.operation.name()));
        let error = self.error(derivation, &self.emulation.arithmetics)?;
        finding.measured(&error, bound, class);
        if finding.class().is_none() {
            return Ok(None);
        }
        for Alternative { name, arithmetic } in alternatives(site.operation, &self.emulation.arithmetics) {
            let other = self.error(derivation, &[arithmetic])?;
            if finding.alternative.is_some_and(|(_, least)| least <= other.rel_l2()) {
                continue;
            }
            finding.alternative = Some((name, other.rel_l2()));
            if other.over(bound) <= NEAR.min(CLOSER * error.over(bound)) {
                finding.judgement = Judgement::Rounding(name);
            }
        }
        Ok(finding.class().map(|_| error))
    }

    /// The errors of every row under the arithmetic that fits it best.
    fn error(&self, derivation: &Derivation, arithmetics: &[Arithmetic]) -> Result<LocalError> {
        let mut best: Option<LocalError> = None;
        for arithmetic in arithmetics {
            let error = self.measure(self.evaluation(derivation, *arithmetic)?, derivation)?;
            best = Some(match best {
                Some(best) => best.closer(error),
                None => error,
            });
        }
        Ok(best.unwrap_or_default())
    }

    /// Every site that a derivation makes.
    fn made<'s>(&'s self, derivation: &'s Derivation) -> impl Iterator<Item = &'s Site> {
        let made = derivation.through.iter().chain([&derivation.site]);
        made.filter_map(|id| self.graph.sites.get(*id as usize))
    }

    /// Whether an operation of a chain rounds what was not recorded to a coarser type: f32 sums in another order then flip
    /// roundings, and nothing can be said at the size of f32's errors.
    fn rounds_unrecorded(&self, derivation: &Derivation) -> bool {
        let arithmetics = &self.emulation.arithmetics;
        let products = arithmetics.iter().any(|arithmetic| arithmetic.products != ProductRounding::None);
        let cache = arithmetics.iter().any(|arithmetic| arithmetic.cache != CacheType::F32);
        let rounds = |site: &Site| match site.operation {
            Operation::MatMul | Operation::Linear | Operation::GatedMatMul | Operation::ExpertMatMul { .. } => products,
            Operation::CacheStore => cache,
            _ => false,
        };
        let unrecorded = |site: &Site| site.inputs.first().is_some_and(|input| derivation.through.contains(input));
        self.made(derivation).any(|site| rounds(site) && unrecorded(site))
    }
}
