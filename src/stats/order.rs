//! The largest values of a row.

use crate::tensor::Element;

/// Indices of the `k` largest values, largest first, ties to the lowest index; all of them where there are fewer. A
/// positive NaN stands above every number.
pub fn top<E: Element>(row: &[E], k: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..row.len()).collect();
    let order = |a: &usize, b: &usize| row[*b].wide().total_cmp(&row[*a].wide()).then(a.cmp(b));
    let k = k.min(indices.len());
    if k < indices.len() {
        indices.select_nth_unstable_by(k, order);
    }
    indices.truncate(k);
    indices.sort_unstable_by(order);
    indices
}
