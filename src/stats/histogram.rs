//! Histograms over bins of one width.

use crate::tensor::Element;

/// A bin: from `low` to less than `high`; the last bin of a histogram holds its `high` too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Smallest value of the bin.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// Values in it.
    pub count: u64,
}

/// How the finite values of `row` spread over `bins` bins from `low` to `high`, as numpy counts them: values outside
/// are in no bin. Empty where `bins` is 0 or the range is empty.
pub fn histogram<E: Element>(row: &[E], bins: usize, low: f64, high: f64) -> Vec<Bin> {
    if bins == 0 || low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
        return Vec::new();
    }
    let step = (high - low) / bins as f64;
    let edge = |number: usize| if number == bins { high } else { low + number as f64 * step };
    let mut counted: Vec<Bin> =
        (0..bins).map(|number| Bin { low: edge(number), high: edge(number + 1), count: 0 }).collect();
    for value in row.iter().map(|value| value.wide()).filter(|value| (low..=high).contains(value)) {
        let guess = (((value - low) / (high - low) * bins as f64) as usize).min(bins - 1);
        // The quotient is rounded; the edges decide.
        let number = if value < counted[guess].low {
            guess - 1
        } else if guess + 1 < bins && value >= counted[guess].high {
            guess + 1
        } else {
            guess
        };
        counted[number].count += 1;
    }
    counted
}
