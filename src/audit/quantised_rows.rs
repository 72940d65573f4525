//! Errors of rows that are read from a table in blocks: each element is off by its own rounding, and nothing is summed.

use super::channels::robust_z;
use super::expected_step::expected_steps;
use super::product_error::{Measure, ProductError, row_measure, slope_bias};
use crate::model::TensorType;
use std::collections::BTreeSet;

/// Steps that an element may be off: see [`super::allowance`] for elements beyond the codes.
const STEPS: f64 = 20.0;

/// Limits of slopes in standard deviations.
const SLOPE: f64 = 6.0;
const COLUMN: f64 = 12.0;

/// The errors of rows of a table; an entry that several tokens read counts once.
pub(super) struct RowsError {
    kind: TensorType,
    seen: BTreeSet<usize>,
    worst_row: Option<Measure>,
    worst_element: Option<(f64, usize)>,
    /// For each column: recorded times error, recorded squared, and the variance of the first.
    columns: Vec<[f64; 3]>,
    variance: f64,
    squares: f64,
}

impl RowsError {
    pub(super) fn new(kind: TensorType) -> Self {
        RowsError {
            kind,
            seen: BTreeSet::new(),
            worst_row: None,
            worst_element: None,
            columns: Vec::new(),
            variance: 0.0,
            squares: 0.0,
        }
    }

    /// Adds what `position` reads: entry `entry`.
    pub(super) fn add(&mut self, entry: usize, position: usize, expected: &[f32], recorded: &[f32]) {
        let mut steps = vec![0f32; expected.len()];
        expected_steps(self.kind, expected, &mut steps);
        let first = self.seen.insert(entry);
        self.columns.resize(expected.len(), [0.0; 3]);
        let (mut errors, mut variances) = (0.0, 0.0);
        for (i, ((expected, recorded), step)) in expected.iter().zip(recorded).zip(&steps).enumerate() {
            let (expected, recorded, step) = (f64::from(*expected), f64::from(*recorded), f64::from(*step));
            let (error, variance) = (recorded - expected, step * step / 12.0);
            errors += error * error;
            variances += variance;
            let off = if error == 0.0 { 0.0 } else { error.abs() / step.max(f64::MIN_POSITIVE) };
            if self.worst_element.is_none_or(|(worst, _)| off > worst || off.is_nan()) {
                self.worst_element = Some((off, position));
            }
            if let Some(column) = self.columns.get_mut(i).filter(|_| first) {
                column[0] += recorded * error;
                column[1] += recorded * recorded;
                column[2] += recorded * recorded * variance;
            }
        }
        if first {
            self.variance += variances;
            self.squares += expected.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        }
        let row = row_measure(position, errors, variances, expected.len());
        if self.worst_row.as_ref().is_none_or(|worst| row.over() > worst.over()) {
            self.worst_row = Some(row);
        }
    }

    /// What follows.
    pub(super) fn judged(self) -> ProductError {
        let mut found = ProductError::default();
        found.measures.extend(self.worst_row);
        if let Some((steps, position)) = self.worst_element {
            let what = format!("an element at position {position} in steps");
            found.measures.push(Measure { what, value: steps, limit: STEPS });
            found.worst_position = Some(position);
        }
        let sum = |part: usize| self.columns.iter().map(|column| column[part]).sum::<f64>();
        let (products, squares, variance) = (sum(0), sum(1), sum(2));
        found.expected = if self.squares > 0.0 { (self.variance / self.squares).sqrt() } else { 0.0 };
        if squares > 0.0 && products.is_finite() {
            let (error, bias) = (variance.sqrt() / squares, slope_bias(self.kind, self.variance / squares));
            found.slope(products / squares, SLOPE * error + bias, bias + 3.0 * error);
        }
        let columns: Vec<f64> =
            self.columns.iter().map(|c| if c[2] > 0.0 { c[0] / c[2].sqrt() } else { 0.0 }).collect();
        if let Some((z, column)) = robust_z(&columns) {
            found.output = Some((z, column));
            found.measures.push(Measure { what: format!("slope of column {column}"), value: z, limit: COLUMN });
        }
        found
    }
}
