//! A third run that is known to be right, at the target's precision: how much further from the reference is the target?
//! docs/decisions/baseline.md has the measurements behind the limit.

use super::comparison::Comparison;
use super::likeness::{Relation, unlike, weights_of_other_type};
use super::pairing::{Pairing, SitePair};
use super::site::{SiteComparison, compare_sites};
use crate::error::Result;
use crate::model::TensorType;
use crate::model::quant::scale_elements;
use crate::open::{RunRef, RunView};
use std::collections::{BTreeMap, BTreeSet};

/// Largest quotient of two right runs' errors against one reference: twice what was measured between ggml's semantics and
/// dequantize-f32 on files in blocks, where rounded activations are as far off as the weights.
pub const RATIO: f64 = 8.0;

/// Fewest elements whose errors are an estimate of size: the errors of one token's four attention scores are chance.
const ELEMENTS: u64 = 64;

/// Errors of baseline and target at one place, over the rows that all three runs have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relative {
    /// `rel_l2` of the baseline against the reference.
    pub baseline: f64,
    /// `rel_l2` of the target against the reference.
    pub target: f64,
    /// Elements that were compared.
    pub elements: u64,
}

impl Relative {
    /// The noise ratio: error of the target over that of the baseline; 1 where both are 0, infinite where only the
    /// baseline's is.
    pub fn ratio(self) -> f64 {
        if self.target == self.baseline { 1.0 } else { self.target / self.baseline }
    }

    /// Whether the ratio is an estimate: of enough elements, and no quotient of noise and nothing.
    fn is_judged(self) -> bool {
        self.elements >= ELEMENTS && (self.baseline > 0.0 || self.target > NOISE)
    }
}

/// Error of rows that right runs have in f32: beside a baseline that is equal to the reference, no more than that is noise.
const NOISE: f64 = 1e-5;

/// A run that is known to be right, beside a comparison.
#[derive(Debug)]
pub struct Baseline {
    /// The run.
    pub run: RunRef,
    /// What it is to the target.
    pub relation: Relation,
    /// Largest noise ratio of a right run; `None` where the ratio cannot decide.
    pub limit: Option<f64>,
    /// Why the ratio cannot decide; empty where it can.
    pub undecided: String,
    /// One for each of the comparison's sites; `None` where the baseline has no such rows, or no values.
    pub sites: Vec<Option<Relative>>,
}

impl Baseline {
    /// Measures `run` and the target of `pairing` on the rows that both share with the reference.
    ///
    /// # Errors
    /// NotComparable, where the prompts differ or no row is left; otherwise those of reading.
    pub(super) fn measure(run: RunRef, pairing: &Pairing, compared: &[SiteComparison]) -> Result<Self> {
        let (baseline, target) = (run.view(), pairing.target.view());
        let undecided = undecided(baseline, target);
        let mut theirs = Pairing::new(pairing.reference.clone(), run.clone())?;
        let shared = shared(pairing, &theirs);
        let common = |site: &SitePair| shared.get(&place(site)).cloned().unwrap_or_default();
        let whole = pairing.sites.iter().all(|site| common(site).len() == site.rows.len());
        keep(&mut theirs, &shared);
        let own;
        let ours = if whole {
            compared
        } else {
            let mut ours = Pairing::new(pairing.reference.clone(), pairing.target.clone())?;
            keep(&mut ours, &shared);
            own = compare_sites(&ours)?;
            &own
        };
        let errors: BTreeMap<_, _> = theirs.sites.iter().map(place).zip(compare_sites(&theirs)?).collect();
        let relative = |(site, ours): (&SitePair, &SiteComparison)| {
            let error = |site: &SiteComparison| Some(site.whole()).filter(|_| site.undecided_rows == 0);
            let theirs = errors.get(&place(site))?;
            let elements = theirs.sums.count;
            (elements > 0).then_some(())?;
            Some(Relative { baseline: error(theirs)?, target: error(ours)?, elements })
        };
        let sites = pairing.sites.iter().zip(ours).map(relative).collect();
        let limit = undecided.is_empty().then_some(RATIO);
        Ok(Baseline { relation: Relation::of(baseline, target), run: run.clone(), limit, undecided, sites })
    }

    /// The first place whose ratio is beyond the limit, with its ratio; and whether any place could be judged.
    pub(super) fn first_beyond(&self) -> (Option<(usize, f64)>, bool) {
        let Some(limit) = self.limit else { return (None, false) };
        let judged = self.sites.iter().enumerate().filter_map(|(at, site)| Some((at, (*site)?)));
        let mut judged = judged.filter(|(_, site)| site.is_judged()).peekable();
        let any = judged.peek().is_some();
        (judged.map(|(at, site)| (at, site.ratio())).find(|(_, ratio)| *ratio > limit), any)
    }

    /// The first place of `pairing` that a pass would rest on nothing at: rows of which are not in `direct`, the comparison
    /// of this run with the target, or, where errors against the reference decide, have none. A place at which the target
    /// is equal to the reference in every bit needs no baseline.
    pub(super) fn first_gap(
        &self,
        pairing: &Pairing,
        compared: &[SiteComparison],
        direct: &Comparison,
    ) -> Option<usize> {
        let known: BTreeMap<_, _> = direct
            .pairing
            .iter()
            .flat_map(|pairing| &pairing.sites)
            .map(|site| (place(site), positions(site)))
            .collect();
        let covered = |site: &SitePair| known.get(&place(site)).is_some_and(|known| positions(site).is_subset(known));
        let by_ratio = direct.tolerance.floor;
        let is_gap = |(at, (site, ours)): (usize, (&SitePair, &SiteComparison))| {
            let equal = !ours.differs() && site.missing.is_empty() && site.uneven.is_empty();
            let measured = !by_ratio || self.sites.get(at).is_some_and(Option::is_some);
            let known = equal || covered(site) && measured;
            (!known).then_some(at)
        };
        pairing.sites.iter().zip(compared).enumerate().find_map(is_gap)
    }

    /// The largest ratio that was judged.
    pub fn largest(&self) -> Option<f64> {
        let judged = self.sites.iter().flatten().filter(|site| site.is_judged());
        judged.map(|site| site.ratio()).reduce(f64::max)
    }
}

/// Why errors of these two against one reference say nothing of each other; empty where they do.
fn undecided(baseline: &RunView, target: &RunView) -> String {
    let types = weights_of_other_type(baseline, target, |weight| weight.shape.len() > 1);
    let (b, t) = (&baseline.identity, &target.identity);
    if let Some((name, baseline, target)) = types.first() {
        return format!("the baseline's weights are of other types ({name}: {baseline} against {target})");
    }
    let blocks = TensorType::named(&t.weight_type).and_then(scale_elements).is_some();
    let rounding = |run: &crate::record::RunV1| (run.semantics.clone(), run.compute_type.clone(), run.kv_type.clone());
    if rounding(b) != rounding(t) && !blocks {
        // The weights' own rounding is the smaller part there: three digits lie between the errors of two right runs.
        return format!("weights in {} hide no other rounding: {}", t.weight_type, unlike(baseline, target).join(", "));
    }
    String::new()
}

type Place = (i32, String, u32);

fn place(site: &SitePair) -> Place {
    (site.layer, site.point.clone(), site.occurrence)
}

/// Positions at which either run has a row.
fn positions(site: &SitePair) -> BTreeSet<u32> {
    let rows = site.rows.iter().map(|row| row.position);
    rows.chain(site.missing.iter().copied()).chain(site.uneven.iter().copied()).collect()
}

/// Positions by place that both pairings have.
fn shared(ours: &Pairing, theirs: &Pairing) -> BTreeMap<Place, BTreeSet<u32>> {
    let positions = |site: &SitePair| site.rows.iter().map(|row| row.position).collect::<BTreeSet<u32>>();
    let known: BTreeMap<_, _> = theirs.sites.iter().map(|site| (place(site), positions(site))).collect();
    let common = |site: &SitePair| {
        Some((place(site), known.get(&place(site))?.intersection(&positions(site)).copied().collect()))
    };
    ours.sites.iter().filter_map(common).collect()
}

fn keep(pairing: &mut Pairing, shared: &BTreeMap<Place, BTreeSet<u32>>) {
    for site in &mut pairing.sites {
        let wanted = shared.get(&place(site));
        site.rows.retain(|row| wanted.is_some_and(|wanted| wanted.contains(&row.position)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a right run has and the target has not is infinitely further off; a last place of f32 is not.
    #[test]
    fn a_baseline_without_error_judges_what_is_more_than_noise() {
        let at = |baseline, target, elements| Relative { baseline, target, elements };
        assert!(at(0.0, 0.5, ELEMENTS).is_judged() && at(0.0, 0.5, ELEMENTS).ratio().is_infinite());
        assert!(at(0.1, 0.0, ELEMENTS).is_judged() && !at(0.0, 1e-7, ELEMENTS).is_judged());
        assert!(!at(0.0, 0.5, ELEMENTS - 1).is_judged());
    }
}
