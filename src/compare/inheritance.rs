//! How much of a place's error comes from its inputs, estimated from the errors alone. docs/comparing.md has the formulas.

use super::metrics::Sums;
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
        site.known()?.rel_l2().map(|error| error / inherited)
    }

    /// The estimate for place `at`.
    fn estimated(pairs: &[SitePair], sites: &[SiteComparison], at: usize) -> Self {
        let (Some(pair), Some(site)) = (pairs.get(at), sites.get(at)) else { return Inheritance::default() };
        let Some(all) = site.known().filter(|_| pair.has_all_inputs()) else {
            return Inheritance::default();
        };
        let share = |input: &usize| {
            let input = sites.get(*input)?.known()?;
            Some((gain(&pair.operation, input, all)? * input.rel_l2()?).powi(2))
        };
        let squares = pair.inputs.iter().map(share).sum::<Option<f64>>();
        // A sum of nothing is -0.
        let inherited = squares.map(|squares| squares.sqrt() + 0.0).filter(|inherited| inherited.is_finite());
        let own = |inherited: f64| Some((all.rel_l2()?.powi(2) - inherited * inherited).max(0.0).sqrt());
        let introduced = inherited.and_then(own).filter(|introduced| introduced.is_finite());
        Inheritance { inherited, introduced, measured: false }
    }
}

/// What becomes of a relative error: in a sum each part counts by its size against the result's, elsewhere relative errors
/// stay what they are. `None` where the result is 0.
fn gain(operation: &str, input: &Sums, output: &Sums) -> Option<f64> {
    if !["add", "sum", "bias"].contains(&operation) {
        return Some(1.0);
    }
    let (part, whole) = (input.reference_squares.sqrt(), output.reference_squares.sqrt());
    (whole > 0.0).then(|| part / whole)
}

/// The estimate for every place.
pub(super) fn estimate(pairs: &[SitePair], sites: &[SiteComparison]) -> Vec<Inheritance> {
    (0..sites.len()).map(|at| Inheritance::estimated(pairs, sites, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Moments;

    /// A place whose reference has this norm and whose error is that share of it.
    fn site(norm: f64, error: f64) -> SiteComparison {
        let error_squares = (norm * error).powi(2);
        SiteComparison {
            sums: Sums { count: 1, reference_squares: norm * norm, error_squares, ..Sums::default() },
            equal_rows: 0,
            tensor_rows: 1,
            undecided_rows: 0,
            worst_row: error,
            worst_position: None,
            worst_element: None,
            first_differing: Some(0),
            reference: Moments::default(),
            target: Moments::default(),
        }
    }

    fn pair(operation: &str, inputs: Vec<usize>) -> SitePair {
        SitePair {
            layer: 0,
            point: "point".to_owned(),
            occurrence: 0,
            ordinal: 0,
            operation: operation.to_owned(),
            other_operation: None,
            heads: 0,
            inputs,
            unseen: Vec::new(),
            rows: Vec::new(),
            missing: Vec::new(),
            uneven: Vec::new(),
        }
    }

    fn near(value: Option<f64>, expected: f64) {
        assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?} is not {expected}");
    }

    /// Parts of norms 3 and 4 that are 10 % and 20 % off, of a whole of norm 5: sqrt(0.3^2 + 0.8^2) / 5.
    #[test]
    fn parts_of_a_sum_count_by_their_size_and_other_inputs_by_their_relative_error() {
        let sites = [site(3.0, 0.1), site(4.0, 0.2), site(5.0, 0.2)];
        let pairs = |operation| [pair("mat_mul", vec![]), pair("mat_mul", vec![]), pair(operation, vec![0, 1])];
        let sum = estimate(&pairs("add"), &sites)[2];
        near(sum.inherited, 0.73f64.sqrt() / 5.0);
        near(sum.introduced, (0.04 - 0.73 / 25.0f64).sqrt());
        near(sum.amplification(&sites[2]), 0.2 / (0.73f64.sqrt() / 5.0));
        let product = estimate(&pairs("multiply"), &sites)[2];
        near(product.inherited, 0.05f64.sqrt());
        assert_eq!((product.introduced, product.measured), (Some(0.0), false), "0.2 is below what it inherits");
    }

    #[test]
    fn an_input_that_is_not_compared_leaves_nothing_to_estimate() {
        let sites = [site(3.0, 0.1), site(5.0, 0.2)];
        let unseen = SitePair { unseen: vec!["layers.0.q".to_owned()], ..pair("add", vec![0]) };
        let found = estimate(&[pair("mat_mul", vec![]), unseen], &sites)[1];
        assert_eq!((found, found.amplification(&sites[1])), (Inheritance::default(), None));
        // What has no input made all of its error.
        near(estimate(&[pair("token_embedding", vec![])], &sites)[0].introduced, 0.1);
    }
}
