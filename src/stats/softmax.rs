//! Softmax, in f64.

use crate::tensor::Element;

/// `ln(sum exp(x))`, safe for large values; negative infinity of nothing.
pub fn log_sum_exp<E: Element>(row: &[E]) -> f64 {
    let largest = row.iter().fold(f64::NEG_INFINITY, |largest, value| largest.max(value.wide()));
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + row.iter().map(|value| (value.wide() - largest).exp()).sum::<f64>().ln()
}

/// `exp(x) / sum exp(x)` of finite values.
pub fn softmax<E: Element>(row: &[E]) -> Vec<f64> {
    let norm = log_sum_exp(row);
    row.iter().map(|value| (value.wide() - norm).exp()).collect()
}
