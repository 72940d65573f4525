//! Metrics of two rows of logits.

use crate::stats::{log_sum_exp, top};
use crate::tensor::Element;
use std::collections::HashSet;

/// What a difference of logits means for the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitsMetrics {
    /// `sum p ln(p / q)` over softmax, p of the reference.
    pub kl_divergence: f64,
    /// Whether both choose the same token (ties to the lowest id).
    pub top1_equal: bool,
    /// Tokens that the ten largest of both have in common, over ten (or the vocabulary, if smaller).
    pub top10_overlap: f64,
    /// Rank of the reference's choice in the target, from 0.
    pub rank: u32,
    /// Largest less second largest logit of the reference.
    pub reference_gap: f64,
    /// Largest less second largest logit of the target.
    pub target_gap: f64,
}

impl LogitsMetrics {
    /// Metrics of two logits rows; `None` where a value is nonfinite or there are fewer than two, and where logits are so
    /// far apart that f64 has no number for the divergence.
    pub fn of<E: Element>(reference: &[E], target: &[E]) -> Option<Self> {
        if reference.len() < 2 || !finite(reference) || !finite(target) {
            return None;
        }
        let (top_r, top_t) = (top(reference, 10), top(target, 10));
        let chosen = top_r[0];
        let bar = target[chosen].wide();
        let above = |(id, value): (usize, &E)| value.wide() > bar || (value.wide() == bar && id < chosen);
        Some(LogitsMetrics {
            kl_divergence: kl_divergence(reference, target)?,
            top1_equal: top_t[0] == chosen,
            top10_overlap: overlap(&top_r, &top_t),
            rank: target.iter().enumerate().filter(|pair| above(*pair)).count() as u32,
            reference_gap: gap(reference, &top_r)?,
            target_gap: gap(target, &top_t)?,
        })
    }
}

/// Share of the `k` largest values that two rows have in common, of `k` or of all if there are fewer; `None` where a
/// value is nonfinite or there is none.
pub fn topk_overlap<E: Element>(reference: &[E], target: &[E], k: usize) -> Option<f64> {
    let defined = k > 0 && !reference.is_empty() && finite(reference) && finite(target);
    defined.then(|| overlap(&top(reference, k), &top(target, k)))
}

/// Largest less second largest value; `None` where a value is nonfinite or there are fewer than two.
pub fn top1_gap<E: Element>(row: &[E]) -> Option<f64> {
    finite(row).then(|| gap(row, &top(row, 2)))?
}

fn finite<E: Element>(row: &[E]) -> bool {
    row.iter().all(|value| value.wide().is_finite())
}

fn overlap(reference: &[usize], target: &[usize]) -> f64 {
    let target: HashSet<&usize> = target.iter().collect();
    reference.iter().filter(|id| target.contains(id)).count() as f64 / reference.len() as f64
}

/// The first of `top` less the second.
fn gap<E: Element>(row: &[E], top: &[usize]) -> Option<f64> {
    Some(row.get(*top.first()?)?.wide() - row.get(*top.get(1)?)?.wide())
}

fn kl_divergence<E: Element>(reference: &[E], target: &[E]) -> Option<f64> {
    let (norm_r, norm_t) = (log_sum_exp(reference), log_sum_exp(target));
    let term = |(r, t): (&E, &E)| {
        let (log_p, log_q) = (r.wide() - norm_r, t.wide() - norm_t);
        log_p.exp() * (log_p - log_q)
    };
    let sum: f64 = reference.iter().zip(target).map(term).sum();
    // Rounding can leave a tiny negative sum where both are equal.
    sum.is_finite().then(|| sum.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln(3) / 2.
    #[test]
    fn logits_by_hand() {
        let metrics = LogitsMetrics::of(&[0.0, 0.0], &[0.0, 3f32.ln()]).unwrap();
        assert!((metrics.kl_divergence - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-7, "f32 holds ln 3 to 1e-7");
        assert_eq!((metrics.top1_equal, metrics.rank, metrics.reference_gap), (false, 1, 0.0));
        assert_eq!(LogitsMetrics::of(&[1.0, f32::NAN], &[1.0, 2.0]), None);
    }

    /// The lowest logit is further from the highest than f64 can say.
    #[test]
    fn a_divergence_that_overflows_is_no_number() {
        assert_eq!(LogitsMetrics::of(&[f64::MAX, f64::MIN], &[f64::MAX, f64::MIN]), None);
    }
}
