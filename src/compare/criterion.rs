//! What a rule may ask: a metric, and which side of a limit is the good one.

use super::metrics::ratio;
use super::named::{METRICS, Metric, Needs};
use crate::stats::Moments;

/// Which values of a metric pass a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Those up to it.
    AtMost,
    /// Those from it on.
    AtLeast,
    /// Those whose magnitude is at most the limit.
    Magnitude,
    /// Quotients between its reciprocal and itself.
    Factor,
}

impl Passes {
    /// What a value demands of a limit: the limit that just lets it pass.
    pub fn required(self, value: f64) -> f64 {
        match self {
            Passes::AtMost | Passes::AtLeast => value,
            Passes::Magnitude => value.abs(),
            Passes::Factor => value.max(value.recip()),
        }
    }

    /// Whether a limit of `limit` lets through what demands `required`.
    pub fn allows(self, limit: f64, required: f64) -> bool {
        match self {
            Passes::AtLeast => required >= limit,
            Passes::AtMost | Passes::Magnitude | Passes::Factor => required <= limit,
        }
    }

    /// The limit that just lets through what either of two would.
    pub(super) fn for_both(self, one: f64, other: f64) -> f64 {
        if self.allows(one, other) { one } else { other }
    }

    /// The sign between metric and limit in reports.
    pub fn sign(self) -> &'static str {
        match self {
            Passes::AtMost => "<=",
            Passes::AtLeast => ">=",
            Passes::Magnitude => "within +-",
            Passes::Factor => "within a factor of",
        }
    }
}

/// Where the value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// A metric of compared values.
    Metric(&'static Metric),
    /// Moments of the reference's and the target's values: statistics are enough.
    Moments(OfMoments),
}

/// A metric that a rule may name.
#[derive(Debug, Clone, Copy)]
pub struct Criterion {
    /// Its name, a column of `compare()` in SQL.
    pub name: &'static str,
    /// Which values pass.
    pub passes: Passes,
    pub(super) source: Source,
}

impl Criterion {
    /// The criterion of a name.
    pub fn named(name: &str) -> Option<Criterion> {
        const ALL: &[Metric] = &METRICS;
        let ratio = RATIOS.iter().find(|(known, _)| *known == name);
        if let Some((name, of)) = ratio {
            return Some(Criterion { name, passes: Passes::Factor, source: Source::Moments(*of) });
        }
        let (name, passes) = CRITERIA.into_iter().find(|(known, _)| *known == name)?;
        let metric = ALL.iter().find(|metric| metric.name == name)?;
        Some(Criterion { name, passes, source: Source::Metric(metric) })
    }

    /// The name of every criterion.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CRITERIA.into_iter().map(|(name, _)| name).chain(RATIOS.into_iter().map(|(name, _)| name))
    }

    /// Whether it is of single rows only: its values do not add up.
    pub fn is_of_rows(&self) -> bool {
        self.needs() != Needs::Sums
    }

    /// Whether it is of rows of logits only.
    pub fn is_of_logits(&self) -> bool {
        self.needs() == Needs::Logits
    }

    /// Whether it is a percentile.
    pub(super) fn is_quantile(&self) -> bool {
        self.needs() == Needs::Quantiles
    }

    fn needs(&self) -> Needs {
        match self.source {
            Source::Metric(metric) => metric.needs,
            Source::Moments(_) => Needs::Sums,
        }
    }
}

const CRITERIA: [(&str, Passes); 25] = [
    ("max_abs_diff", Passes::AtMost),
    ("mean_abs_diff", Passes::AtMost),
    ("mse", Passes::AtMost),
    ("rmse", Passes::AtMost),
    ("rel_l2", Passes::AtMost),
    ("rel_linf", Passes::AtMost),
    ("cosine", Passes::AtLeast),
    ("rel_diff", Passes::AtMost),
    ("sqnr_db", Passes::AtLeast),
    ("nmse", Passes::AtMost),
    ("pearson", Passes::AtLeast),
    ("slope", Passes::Magnitude),
    ("ulp_max", Passes::AtMost),
    ("mismatches", Passes::AtMost),
    ("disagreeing", Passes::AtMost),
    ("required_atol", Passes::AtMost),
    ("required_rtol", Passes::AtMost),
    ("share_rel_1e3", Passes::AtLeast),
    ("share_rel_5e3", Passes::AtLeast),
    ("p50_abs_diff", Passes::AtMost),
    ("p99_abs_diff", Passes::AtMost),
    ("ulp_p99", Passes::AtMost),
    ("kl_divergence", Passes::AtMost),
    ("rank", Passes::AtMost),
    ("top10_overlap", Passes::AtLeast),
];

/// A number of the reference's moments and the target's.
type OfMoments = fn(Moments, Moments) -> Option<f64>;

/// The target's statistic over the reference's.
const RATIOS: [(&str, OfMoments); 2] = [
    ("ratio_std", |reference, target| ratio(reference.std()?, target.std()?)),
    ("ratio_rms", |reference, target| ratio(reference.rms()?, target.rms()?)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_criterion() {
        assert_eq!(Criterion::names().filter_map(Criterion::named).count(), CRITERIA.len() + RATIOS.len());
    }
}
