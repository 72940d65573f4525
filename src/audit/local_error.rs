//! How far recorded rows are from the rows that the yardstick makes of the same inputs.

use super::Channels;
use crate::tensor::Rows;

/// What rounding alone may do to an operation, or to a chain of them that was judged as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Operations that round.
    operations: f64,
    /// Relative error per position, of operations that turn by an angle.
    angle: f64,
}

impl Bound {
    /// Largest relative error of a right operation, over all its rows. f32 sums of some thousand products are off by 1e-7
    /// to 7e-7 of their norm.
    const WHOLE: f64 = 1e-6;

    /// The same for one row: a row has fewer elements over which errors even out, and its norm may be small.
    const ROW: f64 = 1e-5;

    /// What f32 does to the results of these operations, and f32 angles to a rotation: an angle of `position` radians is
    /// rounded to `position * 2^-24`, and so is its product with the frequency.
    pub fn of<'a>(operations: impl IntoIterator<Item = &'a str>) -> Self {
        let mut bound = Bound { operations: 0.0, angle: 0.0 };
        for operation in operations {
            bound.operations += if ["identity", "cache_store"].contains(&operation) { 0.0 } else { 1.0 };
            bound.angle += if operation == "rope" { 2.0 / f64::from(1u32 << 24) } else { 0.0 };
        }
        Bound { operations: bound.operations.max(1.0), ..bound }
    }

    /// What is allowed over all rows up to `position`.
    pub fn whole(self, position: usize) -> f64 {
        Self::WHOLE * self.operations + self.angle * position as f64
    }

    /// What is allowed in the row of `position`.
    pub fn row(self, position: usize) -> f64 {
        Self::ROW * self.operations + self.angle * position as f64
    }
}

/// The error of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowError {
    /// Position.
    pub position: usize,
    /// Sum of the squared differences; infinite where one side alone is not finite.
    pub error_squares: f64,
    /// Sum of the squares of the expected values.
    pub expected_squares: f64,
}

/// The errors of one operation over all its rows.
#[derive(Debug, Clone, Default)]
pub struct LocalError {
    /// Every row.
    pub rows: Vec<RowError>,
    /// Sums by output channel.
    pub channels: Channels,
    /// Sum of expected values times their errors.
    products: f64,
}

impl LocalError {
    /// Adds rows from `first_position` on; expected and recorded rows have one shape.
    pub fn add(&mut self, first_position: usize, expected: &Rows, recorded: &Rows) {
        for row in 0..expected.len().min(recorded.len()) {
            self.add_row(first_position + row, expected.row(row), recorded.row(row));
        }
    }

    /// Adds the row of `position`.
    pub fn add_row(&mut self, position: usize, expected: &[f32], recorded: &[f32]) {
        let mut sums = RowError { position, error_squares: 0.0, expected_squares: 0.0 };
        if expected.len() != recorded.len() {
            sums.error_squares = f64::INFINITY;
        }
        for (e, r) in expected.iter().zip(recorded) {
            if !e.is_finite() || !r.is_finite() {
                let agree = e == r || e.is_nan() && r.is_nan();
                sums.error_squares += if agree { 0.0 } else { f64::INFINITY };
                continue;
            }
            let (e, r) = (f64::from(*e), f64::from(*r));
            sums.error_squares += (r - e) * (r - e);
            sums.expected_squares += e * e;
            self.products += e * (r - e);
        }
        self.channels.add(expected, recorded);
        self.rows.push(sums);
    }

    /// For each row the one of two errors that is smaller; both are of the same rows.
    #[must_use]
    pub fn closer(mut self, other: LocalError) -> LocalError {
        if other.rel_l2() < self.rel_l2() {
            (self.channels, self.products) = (other.channels, other.products);
        }
        for (row, other) in self.rows.iter_mut().zip(other.rows) {
            if other.error_squares < row.error_squares {
                *row = other;
            }
        }
        self
    }

    /// `|recorded - expected| / |expected|` over all rows; 0 where nothing differs, infinite where something does and
    /// nothing is to be there.
    pub fn rel_l2(&self) -> f64 {
        ratio(self.sum(|row| row.error_squares), self.sum(|row| row.expected_squares))
    }

    /// Recorded over expected by least squares, less one; `None` where nothing is to be there.
    pub fn slope(&self) -> Option<f64> {
        let squares = self.sum(|row| row.expected_squares);
        (squares > 0.0 && self.products.is_finite()).then(|| self.products / squares)
    }

    /// The row that is furthest off, measured against its own norm or the middle row's, whichever is larger. Not the
    /// average row's: a first token a thousand times longer than the others would hide them.
    pub fn worst(&self) -> Option<(usize, f64)> {
        self.relative().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, error)| *error > 0.0)
    }

    /// The largest quotient of an error and what is allowed for it: above 1, the operation was not done right.
    pub fn over(&self, bound: Bound) -> f64 {
        let rows = self.relative().map(|(position, error)| error / bound.row(position));
        rows.fold(self.rel_l2() / bound.whole(self.last()), f64::max)
    }

    /// The last position.
    pub fn last(&self) -> usize {
        self.rows.iter().map(|row| row.position).max().unwrap_or(0)
    }

    fn relative(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let mut squares: Vec<f64> = self.rows.iter().map(|row| row.expected_squares).collect();
        let middle = squares.len() / 2;
        let median = if squares.is_empty() { 0.0 } else { *squares.select_nth_unstable_by(middle, f64::total_cmp).1 };
        self.rows.iter().map(move |row| (row.position, ratio(row.error_squares, row.expected_squares.max(median))))
    }

    fn sum(&self, of: impl Fn(&RowError) -> f64) -> f64 {
        self.rows.iter().map(of).sum()
    }
}

fn ratio(error: f64, norm: f64) -> f64 {
    match (error, norm) {
        (0.0, _) => 0.0,
        (_, 0.0) => f64::INFINITY,
        _ => (error / norm).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_counts_against_its_row_or_the_middle_one() {
        let mut error = LocalError::default();
        error.add_row(0, &[3000.0, 4000.0], &[3000.0, 4000.0]);
        error.add_row(1, &[0.0, 0.0], &[0.0, 5e-3]);
        error.add_row(2, &[3.0, 4.0], &[3.0, 4.0]);
        assert!((error.rel_l2() - 1e-6).abs() < 1e-9);
        let (position, worst) = error.worst().unwrap();
        assert_eq!(position, 1);
        assert!((worst - 1e-3).abs() < 1e-6);
        assert!(error.over(Bound::of(["mat_mul"])) > 99.0);
    }

    #[test]
    fn a_rotation_may_be_off_by_its_angle() {
        let mut error = LocalError::default();
        error.add_row(10_000, &[1.0], &[1.0 + 1e-3]);
        assert!(error.over(Bound::of(["mat_mul"])) > 900.0 && error.over(Bound::of(["rope"])) < 1.0);
        assert!(error.over(Bound::of(["rope", "mat_mul"])) < error.over(Bound::of(["rope"])));
        assert_eq!(Bound::of(["identity", "add"]), Bound::of(["add"]));
        assert_eq!(Bound::of(["cache_store"]), Bound::of(["add"]));
    }

    #[test]
    fn what_is_not_finite_agrees_or_is_infinitely_off() {
        let mut error = LocalError::default();
        error.add_row(0, &[f32::NAN, 1.0, f32::INFINITY], &[f32::NAN, 1.0, f32::INFINITY]);
        assert_eq!(error.rel_l2(), 0.0);
        error.add_row(1, &[1.0], &[f32::NAN]);
        assert_eq!(error.rel_l2(), f64::INFINITY);
    }

    #[test]
    fn a_slope_is_what_everything_was_multiplied_with() {
        let mut error = LocalError::default();
        error.add_row(0, &[1.0, -2.0, 3.0], &[1.05, -2.1, 3.15]);
        assert!((error.slope().unwrap() - 0.05).abs() < 1e-6);
        assert_eq!(LocalError::default().slope(), None);
    }
}
