//! What a wrong operation did instead, as far as what was recorded tells; and the class of the fault.

use super::{Class, LocalError};
use crate::error::Result;
use crate::graph::{Graph, Operation, Site};
use crate::replay::{Derivation, Recorded};

/// How much smaller errors have to become under a hypothesis, in the middle one of the wrong rows, to believe it.
const CLOSER: f64 = 1.0 / 3.0;

/// The class of a fault in an operation that no rounding explains.
pub(super) fn class_of(operation: &str) -> Class {
    match operation {
        "token_embedding" => Class::Tokens,
        "cache_store" => Class::Cache,
        _ => Class::Kernel,
    }
}

/// Whether an operation reads keys or values of earlier positions.
pub(super) fn reads_cache(site: &Site) -> bool {
    matches!(site.operation, Operation::AttnScores { .. } | Operation::AttnContext { .. })
}

/// Whether `other`, the errors of the same rows under a hypothesis, is much closer where `plain` is wrong.
pub(super) fn explains(plain: &LocalError, other: &LocalError) -> bool {
    let pairs = plain.rows.iter().zip(&other.rows).filter(|(plain, _)| plain.error_squares > 0.0);
    let mut quotients: Vec<f64> =
        pairs.map(|(plain, other)| (other.error_squares / plain.error_squares).sqrt()).collect();
    let middle = quotients.len() / 2;
    !quotients.is_empty() && *quotients.select_nth_unstable_by(middle, f64::total_cmp).1 <= CLOSER
}

/// Another recorded point whose rows these are, in words: the operation was left out, or a buffer is stale.
pub(super) fn same_rows(graph: &Graph, recorded: &Recorded, derivation: &Derivation, wrong: usize) -> Result<String> {
    let Some(site) = graph.sites.get(derivation.site as usize) else { return Ok(String::new()) };
    let own = recorded.values(site.id, wrong..wrong + 1)?;
    let equal = |other: &Site| -> Result<bool> {
        let there = u32::try_from(wrong).is_ok_and(|position| recorded.has_at(other.id, position));
        Ok(there && recorded.values(other.id, wrong..wrong + 1)?.values() == own.values())
    };
    for input in site.inputs.iter().filter_map(|id| graph.sites.get(*id as usize)) {
        if equal(input)? {
            return Ok(format!("the rows are those of its input {}: the operation was left out", input.point));
        }
    }
    for other in graph.sites.iter().filter(|other| other.point == site.point && other.id < site.id) {
        if equal(other)? {
            let layer = other.layer.map_or_else(String::new, |layer| format!(" in layer {layer}"));
            return Ok(format!("the rows are those of {}{layer}: a stale buffer", other.point));
        }
    }
    Ok(String::new())
}
