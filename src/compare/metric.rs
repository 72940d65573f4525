//! Error metrics by name, for rules: each says of what it is, and which side of a limit is the good one.

use super::metrics::Sums;
use super::row::RowComparison;
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

/// Where a metric's value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Sums over pairs of elements: of one row, or of all.
    Sums(fn(&Sums) -> Option<f64>),
    /// Moments of the reference's and the target's values: statistics are enough.
    Moments(fn(Moments, Moments) -> Option<f64>),
    /// One pair of rows; such values do not add up.
    Row(fn(&RowComparison) -> Option<f64>),
}

/// A metric that a rule may name.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, a column of `compare()` in SQL.
    pub name: &'static str,
    /// Which values pass.
    pub passes: Passes,
    pub(super) source: Source,
}

impl Metric {
    /// The metric of a name.
    pub fn named(name: &str) -> Option<&'static Metric> {
        METRICS.iter().find(|metric| metric.name == name)
    }

    /// The name of every metric.
    pub fn names() -> impl Iterator<Item = &'static str> {
        METRICS.iter().map(|metric| metric.name)
    }

    /// Whether it is of single rows only.
    pub fn is_of_rows(&self) -> bool {
        matches!(self.source, Source::Row(_))
    }

    /// Whether it is of rows of logits only.
    pub fn is_of_logits(&self) -> bool {
        LOGITS.contains(&self.name)
    }

    /// Whether it is a percentile.
    pub(super) fn is_quantile(&self) -> bool {
        QUANTILES.contains(&self.name)
    }
}

const LOGITS: [&str; 3] = ["kl_divergence", "rank", "top10_overlap"];
const QUANTILES: [&str; 3] = ["p50_abs_diff", "p99_abs_diff", "ulp_p99"];

const METRICS: [Metric; 27] = [
    of_sums("max_abs_diff", Passes::AtMost, Sums::max_abs_diff),
    of_sums("mean_abs_diff", Passes::AtMost, Sums::mean_abs_diff),
    of_sums("mse", Passes::AtMost, Sums::mse),
    of_sums("rmse", Passes::AtMost, Sums::rmse),
    of_sums("rel_l2", Passes::AtMost, Sums::rel_l2),
    of_sums("rel_linf", Passes::AtMost, Sums::rel_linf),
    of_sums("cosine", Passes::AtLeast, Sums::cosine),
    of_sums("rel_diff", Passes::AtMost, Sums::rel_diff),
    of_sums("sqnr_db", Passes::AtLeast, Sums::sqnr_db),
    of_sums("nmse", Passes::AtMost, Sums::nmse),
    of_sums("pearson", Passes::AtLeast, Sums::pearson),
    of_sums("slope", Passes::Magnitude, Sums::slope),
    of_sums("ulp_max", Passes::AtMost, |sums| Some(sums.ulp_max as f64)),
    of_sums("mismatches", Passes::AtMost, |sums| Some((sums.mismatches + sums.disagreeing) as f64)),
    of_sums("disagreeing", Passes::AtMost, |sums| Some(sums.disagreeing as f64)),
    of_sums("required_atol", Passes::AtMost, Sums::max_abs_diff),
    of_sums("required_rtol", Passes::AtMost, Sums::required_rtol),
    of_sums("share_rel_1e3", Passes::AtLeast, Sums::share_rel_1e3),
    of_sums("share_rel_5e3", Passes::AtLeast, Sums::share_rel_5e3),
    of_moments("ratio_std", |r, t| ratio(r.std()?, t.std()?)),
    of_moments("ratio_rms", |r, t| ratio(r.rms()?, t.rms()?)),
    of_row("p50_abs_diff", Passes::AtMost, |row| row.quantiles.map(|quantiles| quantiles.error_p50)),
    of_row("p99_abs_diff", Passes::AtMost, |row| row.quantiles.map(|quantiles| quantiles.error_p99)),
    of_row("ulp_p99", Passes::AtMost, |row| row.quantiles.map(|quantiles| quantiles.ulp_p99 as f64)),
    of_row("kl_divergence", Passes::AtMost, |row| row.logits.map(|logits| logits.kl_divergence)),
    of_row("rank", Passes::AtMost, |row| row.logits.map(|logits| f64::from(logits.rank))),
    of_row("top10_overlap", Passes::AtLeast, |row| row.logits.map(|logits| logits.top10_overlap)),
];

const fn of_sums(name: &'static str, passes: Passes, of: fn(&Sums) -> Option<f64>) -> Metric {
    Metric { name, passes, source: Source::Sums(of) }
}

const fn of_moments(name: &'static str, of: fn(Moments, Moments) -> Option<f64>) -> Metric {
    Metric { name, passes: Passes::Factor, source: Source::Moments(of) }
}

const fn of_row(name: &'static str, passes: Passes, of: fn(&RowComparison) -> Option<f64>) -> Metric {
    Metric { name, passes, source: Source::Row(of) }
}

/// t / r; 1 where both are 0.
fn ratio(r: f64, t: f64) -> Option<f64> {
    Some(if r == t { 1.0 } else { t / r })
}
