//! Where two tensors differ most, element by element.

use crate::tensor::Element;
use std::cmp::Ordering;

/// An element where two tensors differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ElementDifference {
    /// Index in the tensors.
    pub index: u32,
    /// Value of the reference.
    pub reference: f64,
    /// Value of the target.
    pub target: f64,
    /// Target less reference; `None` where one is nonfinite, or both in different ways.
    pub difference: Option<f64>,
}

/// The `k` elements that differ most, largest first, ties by index; equal elements are none of them. A pair without a
/// difference stands before every number.
pub fn top_differences<E: Element>(reference: &[E], target: &[E], k: usize) -> Vec<ElementDifference> {
    let mut differing: Vec<ElementDifference> = (0..)
        .zip(reference.iter().zip(target))
        .filter_map(|(index, (r, t))| differs(index, r.wide(), t.wide()))
        .collect();
    let size = |element: &ElementDifference| element.difference.map_or(f64::INFINITY, f64::abs);
    let order = |a: &ElementDifference, b: &ElementDifference| -> Ordering {
        size(b).total_cmp(&size(a)).then(a.index.cmp(&b.index))
    };
    if k < differing.len() {
        differing.select_nth_unstable_by(k, order);
        differing.truncate(k);
    }
    differing.sort_unstable_by(order);
    differing
}

fn differs(index: u32, reference: f64, target: f64) -> Option<ElementDifference> {
    let equal = reference == target || (reference.is_nan() && target.is_nan());
    let difference = Some(target - reference).filter(|_| reference.is_finite() && target.is_finite());
    (!equal).then_some(ElementDifference { index, reference, target, difference })
}
