//! Percentiles by nearest rank: always a value that is there.

use crate::tensor::Element;

/// Index, among `count` sorted values, of the smallest that at least the share `share` of them does not exceed.
pub fn nearest_rank(share: f64, count: usize) -> usize {
    ((share * count as f64).ceil() as usize).clamp(1, count.max(1)) - 1
}

/// Percentile `percent`, 0 to 100, of the finite values of `row`; `None` where there is none.
pub fn percentile<E: Element>(row: &[E], percent: f64) -> Option<f64> {
    let mut values: Vec<f64> = row.iter().map(|value| value.wide()).filter(|value| value.is_finite()).collect();
    let rank = nearest_rank(percent / 100.0, values.len());
    if values.is_empty() {
        return None;
    }
    Some(*values.select_nth_unstable_by(rank, f64::total_cmp).1)
}
