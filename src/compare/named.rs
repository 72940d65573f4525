//! Every error metric of a pair of rows, by the name that it has in SQL.

use super::metrics::Sums;
use super::row::RowComparison;

/// What a metric is worked out from beyond the sums, which every comparison has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing more.
    Sums,
    /// Percentiles.
    Quantiles,
    /// That the rows are logits.
    Logits,
}

/// How a metric is read from a compared pair; `None` where it has no value.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    /// A number.
    Float(fn(&RowComparison) -> Option<f64>),
    /// A count, or an index.
    Count(fn(&RowComparison) -> Option<u64>),
    /// Yes or no.
    Flag(fn(&RowComparison) -> Option<bool>),
}

/// A metric with its name.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// What it is worked out from.
    pub needs: Needs,
    /// How it is read.
    pub reading: Reading,
}

const fn float(name: &'static str, of: fn(&RowComparison) -> Option<f64>) -> Metric {
    Metric { name, needs: Needs::Sums, reading: Reading::Float(of) }
}

const fn count(name: &'static str, of: fn(&RowComparison) -> Option<u64>) -> Metric {
    Metric { name, needs: Needs::Sums, reading: Reading::Count(of) }
}

impl Metric {
    const fn of(self, needs: Needs) -> Metric {
        Metric { needs, ..self }
    }

    /// Its value as a number; yes is 1 and no is 0.
    pub fn number(&self, row: &RowComparison) -> Option<f64> {
        match self.reading {
            Reading::Float(of) => of(row),
            Reading::Count(of) => of(row).map(|count| count as f64),
            Reading::Flag(of) => of(row).map(|flag| f64::from(u8::from(flag))),
        }
    }
}

/// All of them, in the order of the documentation.
pub const METRICS: [Metric; 34] = [
    count("compared", |row| Some(row.sums?.count)),
    count("disagreeing", |row| Some(row.sums?.disagreeing)),
    float("max_abs_diff", |row| row.sums?.max_abs_diff()),
    float("mean_abs_diff", |row| row.sums?.mean_abs_diff()),
    float("mse", |row| row.sums?.mse()),
    float("rmse", |row| row.sums?.rmse()),
    float("rel_l2", |row| row.sums?.rel_l2()),
    float("rel_linf", |row| row.sums?.rel_linf()),
    float("cosine", |row| row.sums?.cosine()),
    float("rel_diff", |row| row.sums?.rel_diff()),
    float("sqnr_db", |row| row.sums?.sqnr_db()),
    float("nmse", |row| row.sums?.nmse()),
    float("pearson", |row| row.sums?.pearson()),
    float("slope", |row| row.sums?.slope()),
    count("ulp_max", |row| row.sums?.ulp_max()),
    count("mismatches", |row| row.sums.map(|sums| sums.mismatches + sums.disagreeing)),
    float("required_atol", |row| row.sums?.max_abs_diff()),
    float("required_rtol", |row| row.sums?.required_rtol()),
    float("share_rel_1e3", |row| row.sums?.share_rel_1e3()),
    float("share_rel_5e3", |row| row.sums?.share_rel_5e3()),
    float("error_l2", |row| Some(agreeing(row)?.sums?.error_squares.sqrt())),
    float("reference_l2", |row| Some(agreeing(row)?.sums?.reference_squares.sqrt())),
    count("max_abs_diff_index", |row| agreeing(row)?.worst.map(|worst| u64::from(worst.index))),
    float("reference_value", |row| agreeing(row)?.worst.map(|worst| worst.reference)),
    float("target_value", |row| agreeing(row)?.worst.map(|worst| worst.target)),
    float("p50_abs_diff", |row| agreeing(row)?.quantiles.map(|quantiles| quantiles.error_p50)).of(Needs::Quantiles),
    float("p99_abs_diff", |row| agreeing(row)?.quantiles.map(|quantiles| quantiles.error_p99)).of(Needs::Quantiles),
    count("ulp_p99", |row| agreeing(row)?.quantiles.map(|quantiles| quantiles.ulp_p99)).of(Needs::Quantiles),
    float("kl_divergence", |row| row.logits.map(|logits| logits.kl_divergence)).of(Needs::Logits),
    float("top10_overlap", |row| row.logits.map(|logits| logits.top10_overlap)).of(Needs::Logits),
    count("rank", |row| row.logits.map(|logits| u64::from(logits.rank))).of(Needs::Logits),
    float("reference_gap", |row| row.logits.map(|logits| logits.reference_gap)).of(Needs::Logits),
    float("target_gap", |row| row.logits.map(|logits| logits.target_gap)).of(Needs::Logits),
    Metric {
        name: "top1_equal",
        needs: Needs::Logits,
        reading: Reading::Flag(|row| row.logits.map(|logits| logits.top1_equal)),
    },
];

/// The comparison, where no value is nonfinite on one side only.
fn agreeing(row: &RowComparison) -> Option<&RowComparison> {
    row.sums.as_ref().is_some_and(Sums::agree).then_some(row)
}
