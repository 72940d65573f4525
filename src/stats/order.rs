//! The largest values of a row.

use crate::tensor::Element;

/// Indices of the `k` largest values, largest first, ties to the lowest index; all of them where there are fewer. Both
/// zeros tie; a positive NaN stands above every number.
pub fn top<E: Element>(row: &[E], k: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..row.len()).collect();
    // Adding zero makes one zero of both.
    let value = |index: &usize| row[*index].wide() + 0.0;
    let order = |a: &usize, b: &usize| value(b).total_cmp(&value(a)).then(a.cmp(b));
    let k = k.min(indices.len());
    if k < indices.len() {
        indices.select_nth_unstable_by(k, order);
    }
    indices.truncate(k);
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_either_sign_tie_to_the_lowest_index() {
        assert_eq!(top(&[-0.0f32, 0.0, -1.0], 2), [0, 1]);
        assert_eq!(top(&[-1.0f32, -0.0, 0.0], 1), [1]);
    }
}
