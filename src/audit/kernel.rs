//! Part A: every recorded operation against the yardstick, on its own recorded inputs.

use super::hypothesis::{class_of, explains, reads_cache, same_rows};
use super::yardstick::Yardstick;
use super::{Class, Finding, Judgement, LocalError};
use crate::backend::ReferenceWeight;
use crate::capture::place_name;
use crate::error::Result;
use crate::graph::{Graph, Site, SiteId};
use crate::model::{Model, WeightKey};
use crate::replay::{Derivation, Emulation, Recorded, derive};
use rayon::prelude::*;

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
    let load = |key| ReferenceWeight::new(model.weight(key)?);
    let yardstick = Yardstick { graph, recorded, emulation, load };
    let judge = |site: &&Site| {
        let finding = judged(&yardstick, site);
        done();
        finding
    };
    kept.par_iter().map(judge).collect()
}

fn judged(yardstick: &Yardstick<'_, impl Fn(WeightKey) -> Result<ReferenceWeight>>, site: &Site) -> Result<Finding> {
    let (graph, recorded) = (yardstick.graph, yardstick.recorded);
    let Some(mut derivation) = derive(graph, recorded, site.id) else {
        return Ok(Finding::of(site, "input not recorded"));
    };
    derivation.keep(|position| recorded.has_at(site.id, position));
    if derivation.positions.is_empty() {
        return Ok(Finding::of(site, "input recorded at other positions"));
    }
    let mut finding = Finding::of(site, "");
    let wrong = yardstick.judge(site, &derivation, class_of(site.operation.name()), &mut finding)?;
    if !matches!(finding.judgement, Judgement::Undecided(_)) {
        finding.inputs = names(graph, derivation.reads.iter().copied());
        finding.through = names(graph, derivation.through.iter().copied());
    }
    if let Some(error) = wrong {
        explain(yardstick, site, &derivation, &error, &mut finding)?;
    }
    Ok(finding)
}

/// Looks for what a wrong operation did instead.
fn explain(
    yardstick: &Yardstick<'_, impl Fn(WeightKey) -> Result<ReferenceWeight>>,
    site: &Site,
    derivation: &Derivation,
    error: &LocalError,
    finding: &mut Finding,
) -> Result<()> {
    if let Some(position) = finding.worst_position {
        finding.note = same_rows(yardstick.graph, yardstick.recorded, derivation, position as usize)?;
    }
    for shift in if reads_cache(site) { &[1, -1][..] } else { &[] } {
        let arithmetic = yardstick.emulation.arithmetics.first().copied().unwrap_or_default();
        let evaluation = yardstick.evaluation(derivation, arithmetic)?.with_cache_shift(*shift);
        if explains(error, &yardstick.measure(evaluation, derivation)?) {
            finding.judgement = Judgement::Wrong(Class::Cache);
            let side = if *shift > 0 { "before" } else { "behind" };
            finding.note = format!("it reads the cache one position {side} the one that belongs there");
        }
    }
    Ok(())
}

/// `layers.3.ffn_out`, or `logits`, of each site in forward order; slots of a point count once.
fn names(graph: &Graph, sites: impl Iterator<Item = SiteId>) -> Vec<String> {
    let found = sites.filter_map(|id| graph.sites.get(id as usize));
    let mut names: Vec<String> = found.map(|site| place_name(site.layer, site.point)).collect();
    names.dedup();
    names
}
