//! How much of a place's error comes from its inputs, estimated from the errors alone. docs/comparing.md has the formulas.

use super::pairing::SitePair;
use super::site::SiteComparison;

/// What a place inherited and what it added.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Inheritance {
    /// Relative error that the inputs' errors make in the result, if each grows as the signal does and they are
    /// independent; `None` where an input is not compared.
    pub inherited: Option<f64>,
    /// Relative error that the operation made itself.
    pub introduced: Option<f64>,
    /// Whether `introduced` was measured, by making the operation again from its recorded inputs; else it is the estimate
    /// `sqrt(max(0, d_out^2 - inherited^2))`.
    pub measured: bool,
}

impl Inheritance {
    /// Error of the result over what it inherited; `None` where it inherited none.
    pub fn amplification(&self, site: &SiteComparison) -> Option<f64> {
        let inherited = self.inherited.filter(|inherited| *inherited > 0.0)?;
        site.sums.rel_l2().map(|error| error / inherited)
    }

    /// The estimate for place `at`.
    fn estimated(pairs: &[SitePair], sites: &[SiteComparison], at: usize) -> Self {
        let (Some(pair), Some(site)) = (pairs.get(at), sites.get(at)) else { return Inheritance::default() };
        if !pair.unseen.is_empty() || pair.inputs.is_empty() && pair.operation.is_empty() {
            return Inheritance::default();
        }
        let share = |input: &usize| {
            let input = sites.get(*input)?;
            Some((gain(&pair.operation, input, site)? * input.sums.rel_l2()?).powi(2))
        };
        let squares = pair.inputs.iter().map(share).sum::<Option<f64>>();
        let inherited = squares.map(f64::sqrt).filter(|inherited| inherited.is_finite());
        let own = |inherited: f64| Some((site.sums.rel_l2()?.powi(2) - inherited * inherited).max(0.0).sqrt());
        let introduced = inherited.and_then(own).filter(|introduced| introduced.is_finite());
        Inheritance { inherited, introduced, measured: false }
    }
}

/// What becomes of a relative error: in a sum each part counts by its size against the result's, elsewhere relative errors
/// stay what they are. `None` where the result is 0.
fn gain(operation: &str, input: &SiteComparison, output: &SiteComparison) -> Option<f64> {
    if !["add", "sum", "bias"].contains(&operation) {
        return Some(1.0);
    }
    let (part, whole) = (input.sums.reference_squares.sqrt(), output.sums.reference_squares.sqrt());
    (whole > 0.0).then(|| part / whole)
}

/// The estimate for every place.
pub(super) fn estimate(pairs: &[SitePair], sites: &[SiteComparison]) -> Vec<Inheritance> {
    (0..sites.len()).map(|at| Inheritance::estimated(pairs, sites, at)).collect()
}
