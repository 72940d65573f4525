//! Every statistic of a tensor, by the name that it has in SQL.

use super::{Moments, Number, RowStatistics, Shape};

/// Everything about one tensor that follows from its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorStatistics {
    /// What a trace keeps of each row.
    pub row: RowStatistics,
    /// What the third and fourth moments say.
    pub shape: Shape,
}

impl TensorStatistics {
    /// The statistics of `values`.
    pub fn of<E: Number>(values: &[E]) -> Self {
        let row = RowStatistics::of(values);
        TensorStatistics { row, shape: Shape::of(values, row.moments) }
    }
}

/// How a statistic is read; `None` where it has no value.
#[derive(Debug, Clone, Copy)]
pub enum Figure {
    /// A number.
    Float(fn(&TensorStatistics) -> Option<f64>),
    /// A count, or an index.
    Count(fn(&TensorStatistics) -> Option<u32>),
    /// 64 bits.
    Word(fn(&TensorStatistics) -> u64),
}

/// All of them, in the order of the documentation; those that `activations` has too under its names.
pub const STATISTICS: [(&str, Figure); 23] = [
    ("count", Figure::Count(|all| Some(all.row.count))),
    ("nan", Figure::Count(|all| Some(all.row.nan))),
    ("pos_inf", Figure::Count(|all| Some(all.row.pos_inf))),
    ("neg_inf", Figure::Count(|all| Some(all.row.neg_inf))),
    ("zero", Figure::Count(|all| Some(all.row.zero))),
    ("subnormal", Figure::Count(|all| Some(all.row.subnormal))),
    ("min", Figure::Float(|all| Some(all.row.extremes?.min.0))),
    ("max", Figure::Float(|all| Some(all.row.extremes?.max.0))),
    ("mean", Figure::Float(|all| moments(all).map(|moments| moments.mean))),
    ("std", Figure::Float(|all| all.row.moments.std())),
    ("std_sample", Figure::Float(|all| all.row.moments.std_sample())),
    ("rms", Figure::Float(|all| all.row.moments.rms())),
    ("absmax", Figure::Float(|all| Some(all.row.extremes?.absmax.0))),
    ("l1", Figure::Float(|all| moments(all).map(|_| all.row.l1))),
    ("l2", Figure::Float(|all| all.row.moments.l2())),
    ("abs_smallest", Figure::Float(|all| all.row.abs_smallest)),
    ("dynamic_range", Figure::Float(|all| Some((all.row.extremes?.absmax.0 / all.row.abs_smallest?).log2()))),
    ("skew", Figure::Float(|all| all.shape.skew())),
    ("kurtosis", Figure::Float(|all| all.shape.kurtosis())),
    ("min_index", Figure::Count(|all| Some(all.row.extremes?.min.1))),
    ("max_index", Figure::Count(|all| Some(all.row.extremes?.max.1))),
    ("absmax_index", Figure::Count(|all| Some(all.row.extremes?.absmax.1))),
    ("fingerprint", Figure::Word(|all| all.row.fingerprint)),
];

/// The moments, where there is a finite value.
fn moments(all: &TensorStatistics) -> Option<Moments> {
    Some(all.row.moments).filter(|moments| moments.count > 0)
}
