//! Part A: every recorded operation against the yardstick, on its own recorded inputs.

use super::hypothesis::{class_of, explains, reads_cache, same_rows};
use super::{Bound, Class, Finding, Judgement, LocalError};
use crate::backend::{CacheType, ProductRounding};
use crate::error::Result;
use crate::graph::{Graph, Operation, Site};
use crate::model::Model;
use crate::replay::{Alternative, Derivation, Emulation, Evaluation, Recorded, alternatives, derive};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Relative error that a known rounding has to come down to, to explain a difference.
const EXPLAINED: f64 = 1e-5;

/// Judges every operation of `recorded` whose result was kept, with the weights of `model`, whose graph is `graph`, and
/// the rounding of `emulation`; in forward order.
///
/// # Errors
/// NotComparable, where the run is of another model; those of reading the trace.
pub fn audit_kernels(
    model: &Model,
    graph: &Graph,
    recorded: &Recorded,
    emulation: &Emulation,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Finding>> {
    let kept: Vec<&Site> = graph.sites.iter().filter(|site| recorded.has(site.id)).collect();
    let audit = Audit { model, graph, recorded, emulation };
    let judge = |site: &&Site| {
        let finding = audit.site(site);
        done();
        finding
    };
    kept.par_iter().map(judge).collect()
}

struct Audit<'a> {
    model: &'a Model,
    graph: &'a Graph,
    recorded: &'a Recorded,
    emulation: &'a Emulation,
}

impl Audit<'_> {
    fn site(&self, site: &Site) -> Result<Finding> {
        let undecided = |reason| Finding::of(site, reason);
        let Some(derivation) = derive(self.graph, self.recorded, site.id) else {
            return Ok(undecided("input not recorded"));
        };
        let derivation = self.kept(derivation);
        if derivation.positions.is_empty() {
            return Ok(undecided("input recorded at other positions"));
        }
        if rounds_unrecorded(self.graph, &derivation, self.emulation) {
            return Ok(undecided("it rounds what was not recorded"));
        }
        let error = self.error(&derivation, &self.emulation.arithmetics)?;
        let mut finding = undecided("");
        finding.measured(&error, bound_of(self.graph, &derivation), class_of(site.operation.name()));
        finding.inputs = self.names(derivation.reads.iter().copied());
        finding.through = self.names(derivation.through.iter().copied());
        if finding.class().is_some() {
            self.explain(site, &derivation, &error, &mut finding)?;
        }
        Ok(finding)
    }

    /// Looks for what an operation did that did not do what it should: a known rounding, or a fault that can be named.
    fn explain(&self, site: &Site, derivation: &Derivation, error: &LocalError, finding: &mut Finding) -> Result<()> {
        finding.alternative = self.best_alternative(site, derivation)?;
        if let Some((name, _)) = finding.alternative.filter(|(_, rel_l2)| *rel_l2 <= EXPLAINED) {
            finding.judgement = Judgement::Rounding(name);
            return Ok(());
        }
        if let Some(position) = finding.worst_position {
            finding.note = same_rows(self.graph, self.recorded, derivation, position as usize)?;
        }
        for shift in if reads_cache(site) { &[1, -1][..] } else { &[] } {
            let arithmetic = self.emulation.arithmetics.first().copied().unwrap_or_default();
            let evaluation = Evaluation::new(self.model, self.graph, self.recorded, derivation, arithmetic)?;
            let shifted = self.measure(evaluation.with_cache_shift(*shift), derivation)?;
            if explains(error, &shifted) {
                finding.judgement = Judgement::Wrong(Class::Cache);
                let side = if *shift > 0 { "before" } else { "behind" };
                finding.note = format!("it reads the cache one position {side} the one that belongs there");
            }
        }
        Ok(())
    }

    /// A derivation of positions alone at which the result was kept too.
    fn kept(&self, mut derivation: Derivation) -> Derivation {
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for position in derivation.positions.iter().flat_map(Clone::clone) {
            let at = u32::try_from(position).unwrap_or(u32::MAX);
            match ranges.last_mut().filter(|range| range.end == position) {
                _ if !self.recorded.has_at(derivation.site, at) => {}
                Some(range) => range.end += 1,
                None => ranges.push(position..position + 1),
            }
        }
        derivation.positions = ranges;
        derivation
    }

    /// The error of every row, under the arithmetic that fits it best.
    fn error(&self, derivation: &Derivation, arithmetics: &[crate::backend::Arithmetic]) -> Result<LocalError> {
        let mut best: Option<LocalError> = None;
        for arithmetic in arithmetics {
            let evaluation = Evaluation::new(self.model, self.graph, self.recorded, derivation, *arithmetic)?;
            let error = self.measure(evaluation, derivation)?;
            best = Some(match best {
                Some(best) => best.closer(error),
                None => error,
            });
        }
        Ok(best.unwrap_or_default())
    }

    fn measure(&self, mut evaluation: Evaluation<'_>, derivation: &Derivation) -> Result<LocalError> {
        let mut error = LocalError::default();
        for piece in evaluation.pieces() {
            let expected = evaluation.rows(piece.clone())?;
            let recorded = self.recorded.values(derivation.site, piece.clone())?;
            error.add(piece.start, &expected, &recorded);
        }
        Ok(error)
    }

    fn best_alternative(&self, site: &Site, derivation: &Derivation) -> Result<Option<(&'static str, f64)>> {
        let mut best: Option<(&'static str, f64)> = None;
        for Alternative { name, arithmetic } in alternatives(site.operation, &self.emulation.arithmetics) {
            let rel_l2 = self.error(derivation, &[arithmetic])?.rel_l2();
            if best.is_none_or(|(_, least)| rel_l2 < least) {
                best = Some((name, rel_l2));
            }
        }
        Ok(best)
    }

    fn names(&self, sites: impl Iterator<Item = u32>) -> Vec<String> {
        let mut slots: BTreeMap<(Option<u32>, &str), u32> = BTreeMap::new();
        let found = sites.filter_map(|id| self.graph.sites.get(id as usize));
        found.for_each(|site| *slots.entry((site.layer, site.point)).or_default() += 1);
        slots.into_keys().map(|(layer, point)| place(layer, point)).collect()
    }
}

/// What rounding may do to all operations of a derivation.
pub(super) fn bound_of(graph: &Graph, derivation: &Derivation) -> Bound {
    let made = derivation.through.iter().chain([&derivation.site]).filter_map(|id| graph.sites.get(*id as usize));
    Bound::of(made.map(|site| site.operation.name()))
}

/// Whether an operation of a chain rounds what was not recorded to a coarser type: f32 sums in another order then flip
/// roundings, and nothing can be said at the size of f32's errors.
pub(super) fn rounds_unrecorded(graph: &Graph, derivation: &Derivation, emulation: &Emulation) -> bool {
    let products = emulation.arithmetics.iter().any(|arithmetic| arithmetic.products != ProductRounding::None);
    let cache = emulation.arithmetics.iter().any(|arithmetic| arithmetic.cache != CacheType::F32);
    let made = derivation.through.iter().chain([&derivation.site]).filter_map(|id| graph.sites.get(*id as usize));
    let rounds = |site: &Site| match site.operation {
        Operation::MatMul | Operation::Linear | Operation::GatedMatMul | Operation::ExpertMatMul { .. } => products,
        Operation::CacheStore => cache,
        _ => false,
    };
    let unrecorded = |site: &Site| site.inputs.first().is_some_and(|input| derivation.through.contains(input));
    made.into_iter().any(|site| rounds(site) && unrecorded(site))
}

/// `layers.3.ffn_out`, or `logits`.
fn place(layer: Option<u32>, point: &str) -> String {
    layer.map_or_else(|| point.to_owned(), |layer| format!("layers.{layer}.{point}"))
}
