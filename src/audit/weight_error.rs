//! How far the stored values of a weight are from the original's, against what rounding alone can give.

use super::allowance::{Allowance, Codes, allowances};
use crate::error::Result;
use crate::model::{TensorType, Weight};
use rayon::prelude::*;
use std::ops::Range;

/// Pieces that a weight is measured in, each with sums for every column: bounds memory, and keeps the order of sums.
const PIECES: usize = 64;

/// Largest slope of a whole tensor, and of a row or column beside `STANDARD_ERRORS`, where codes were searched. Measured
/// as [`super::allowance`] says: 0.0134 for a tensor; rows and columns 25 standard errors.
const SLOPE: f64 = 0.02;
const STANDARD_ERRORS: f64 = 30.0;

/// One element in both files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Element {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) run: f32,
    pub(super) original: f32,
}

/// The sums of a row, a column or a tensor.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// Of run times (run - original), where the error is within half a step or is cut to it.
    products: f64,
    /// Of run squared.
    squares: f64,
    /// Of run squared times step squared over 12: the variance of `products` under rounding.
    variance: f64,
}

impl Line {
    fn add(&mut self, other: &Line) {
        self.products += other.products;
        self.squares += other.squares;
        self.variance += other.variance;
    }

    /// How much of the run's values is not in the original's: for run = (1 + s) original, `s / (1 + s)`.
    fn excess(&self) -> f64 {
        if self.squares > 0.0 { self.products / self.squares } else { 0.0 }
    }

    fn standard_error(&self) -> f64 {
        if self.squares > 0.0 { self.variance.sqrt() / self.squares } else { 0.0 }
    }
}

/// What was measured of a weight.
#[derive(Debug, Clone, Default)]
pub(super) struct WeightError {
    /// Elements that are further off than rounding can bring them, or that differ where nothing is rounded.
    pub(super) beyond: u64,
    pub(super) elements: u64,
    /// The first of them.
    pub(super) first: Option<Element>,
    /// The largest quotient of an error and its allowance, with its place.
    pub(super) worst: Option<(f64, Element)>,
    /// The first element that is not finite on one side alone.
    pub(super) not_finite: Option<Element>,
    /// Largest quotient of a slope and its limit; only where codes were searched.
    pub(super) slope_over: f64,
    /// Whether the element order or the blocks cannot be told.
    pub(super) unknown: bool,
    /// Scale of the whole weight, up and down, that would have moved an element beyond its allowance.
    pub(super) room: (f64, f64),
    rows_beyond: usize,
    error_squares: f64,
    original_squares: f64,
    allowed_squares: f64,
    whole: Line,
    rows: Vec<(usize, Line)>,
    columns: Vec<Line>,
}

impl WeightError {
    /// Whether rounding explains every difference.
    pub(super) fn is_right(&self) -> bool {
        self.beyond == 0 && self.not_finite.is_none() && self.slope_over <= 1.0
    }

    /// Whether elements beyond rounding lie in many rows: a search for codes moves some everywhere, damage may be local. An
    /// importance matrix of log-normal weights (sigma 1) moves one element in 300.
    fn is_beyond_everywhere(&self) -> bool {
        16 * self.rows_beyond > self.rows.len()
    }

    /// The largest quotient of anything measured and its limit.
    pub(super) fn over(&self) -> f64 {
        let worst = self.worst.map_or(0.0, |(over, _)| over);
        if self.not_finite.is_some() { f64::INFINITY } else { worst.max(self.slope_over) }
    }

    pub(super) fn rel_l2(&self) -> f64 {
        relative(self.error_squares, self.original_squares)
    }

    /// The relative error if every element was as far off as it may be.
    pub(super) fn bound(&self) -> f64 {
        relative(self.allowed_squares, self.original_squares)
    }

    /// Run over original, less one.
    pub(super) fn slope(&self) -> Option<f64> {
        let excess = self.whole.excess();
        (self.whole.squares > 0.0 && excess < 1.0).then(|| 1.0 / (1.0 - excess) - 1.0)
    }

    /// The row whose slope stands out most from the tensor's, in standard errors of rounding; of a vector none.
    pub(super) fn largest_row(&self) -> Option<(f64, u32)> {
        let whole = self.whole.excess();
        let z = |line: &Line| (line.excess() - whole).abs() / line.standard_error();
        let rows = self.rows.iter().map(|(row, line)| (z(line), *row)).filter(|(z, _)| z.is_finite());
        let (z, row) = rows.max_by(|a, b| a.0.total_cmp(&b.0))?;
        if self.rows.len() > 1 { Some((z, u32::try_from(row).ok()?)) } else { None }
    }

    /// The smallest relative scale of the whole weight that would have been called wrong.
    pub(super) fn detects(&self) -> f64 {
        self.room.0.max(self.room.1)
    }

    fn new(columns: usize) -> Self {
        WeightError {
            room: (f64::INFINITY, f64::INFINITY),
            columns: vec![Line::default(); columns],
            ..WeightError::default()
        }
    }

    fn merge(mut self, other: WeightError) -> Self {
        self.beyond += other.beyond;
        self.elements += other.elements;
        self.rows_beyond += other.rows_beyond;
        self.first = self.first.or(other.first);
        self.not_finite = self.not_finite.or(other.not_finite);
        self.unknown |= other.unknown;
        if other.worst.map(|(over, _)| over) > self.worst.map(|(over, _)| over) {
            self.worst = other.worst;
        }
        self.room = (self.room.0.min(other.room.0), self.room.1.min(other.room.1));
        self.error_squares += other.error_squares;
        self.original_squares += other.original_squares;
        self.allowed_squares += other.allowed_squares;
        self.whole.add(&other.whole);
        self.rows.extend(other.rows);
        self.columns.iter_mut().zip(&other.columns).for_each(|(sum, line)| sum.add(line));
        self
    }

    fn judge_slopes(&mut self) {
        let lines = self.rows.iter().map(|(_, line)| line).chain(&self.columns);
        let over = lines.map(|line| line.excess().abs() / (SLOPE + STANDARD_ERRORS * line.standard_error()));
        self.slope_over = over.fold(self.whole.excess().abs() / SLOPE, f64::max);
        // A scale of the tensor has to leave the limit of its slope too.
        let room = |excess: f64| (SLOPE - excess).max(0.0);
        let (up, down) = (room(self.whole.excess()), room(-self.whole.excess()));
        self.room = (self.room.0.min(up), self.room.1.min(down));
    }
}

/// A weight as two files hold it. Of a norm, `offset` is what the operation adds to its elements.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) run: (&'a Weight, f32),
    pub(super) original: (&'a Weight, f32),
}

impl Pair<'_> {
    /// Measures every element, in the way that known quantisers of the run's type explain best.
    pub(super) fn measure(self) -> Result<WeightError> {
        let nearest = self.measured(Codes::Nearest)?;
        if nearest.is_right() || !Codes::may_be_searched(self.run.0.tensor_type) || !nearest.is_beyond_everywhere() {
            return Ok(nearest);
        }
        self.measured(Codes::Searched)
    }

    fn measured(self, codes: Codes) -> Result<WeightError> {
        let (rows, columns) = (self.run.0.rows, self.run.0.columns);
        let each = rows.div_ceil(PIECES).max(1);
        let pieces: Vec<Range<usize>> = (0..rows).step_by(each).map(|row| row..(row + each).min(rows)).collect();
        let pieces: Vec<WeightError> =
            pieces.into_par_iter().map(|rows| self.piece(rows, codes)).collect::<Result<_>>()?;
        let mut whole = pieces.into_iter().fold(WeightError::new(columns), WeightError::merge);
        if codes == Codes::Searched {
            whole.judge_slopes();
        }
        Ok(whole)
    }

    fn piece(self, rows: Range<usize>, codes: Codes) -> Result<WeightError> {
        let columns = self.run.0.columns;
        let mut error = WeightError::new(columns);
        let (mut run, mut original) = (vec![0f32; columns], vec![0f32; columns]);
        let (mut own, mut other) = (Vec::with_capacity(columns), Vec::new());
        let exact = self.is_exact();
        for row in rows {
            self.run.0.dequantize_row(row, &mut run)?;
            self.original.0.dequantize_row(row, &mut original)?;
            let known = allowances(self.run.0, row, &run, codes, &mut own)?;
            let known = match known {
                Some(()) if self.original_is_rounded() => {
                    allowances(self.original.0, row, &original, Codes::Nearest, &mut other)?
                }
                known => known,
            };
            if known.is_none() && !exact {
                error.unknown = true;
                return Ok(error);
            }
            if exact {
                own.clear();
                own.resize(columns, Allowance::default());
            } else if !other.is_empty() {
                for (own, other) in own.iter_mut().zip(&other) {
                    own.below += other.above;
                    own.above += other.below;
                }
            }
            run.iter_mut().for_each(|value| *value += self.run.1);
            original.iter_mut().for_each(|value| *value += self.original.1);
            error.add_row(row, &run, &original, &own);
        }
        Ok(error)
    }

    /// Whether nothing is rounded between the files.
    fn is_exact(self) -> bool {
        self.run.0.tensor_type == self.original.0.tensor_type && self.run.1 == self.original.1
    }

    /// Whether the original has fewer bits than the run: both may be rounded from a third then.
    fn original_is_rounded(self) -> bool {
        let bits = |kind: TensorType| kind.block_bytes() as f64 / kind.block_elements() as f64;
        bits(self.original.0.tensor_type) <= bits(self.run.0.tensor_type)
    }
}

impl WeightError {
    fn add_row(&mut self, row: usize, run: &[f32], original: &[f32], allowed: &[Allowance]) {
        let mut line = Line::default();
        let before = self.beyond;
        for (column, ((run, original), allowed)) in run.iter().zip(original).zip(allowed).enumerate() {
            self.elements += 1;
            let element = Element { row, column, run: *run, original: *original };
            if !run.is_finite() || !original.is_finite() {
                if run != original && !(run.is_nan() && original.is_nan()) {
                    self.beyond += 1;
                    self.first.get_or_insert(element);
                    self.not_finite.get_or_insert(element);
                }
                continue;
            }
            let (run, original) = (f64::from(*run), f64::from(*original));
            // Positive where the original lies above what the run has.
            let missing = original - run;
            let limit = if missing > 0.0 { allowed.above } else { allowed.below };
            let over = if missing == 0.0 { 0.0 } else { missing.abs() / limit };
            if over > 1.0 {
                self.beyond += 1;
                self.first.get_or_insert(element);
            }
            if self.worst.is_none_or(|(worst, _)| over > worst) {
                self.worst = Some((over, element));
            }
            self.add_room(original, allowed.above - missing, allowed.below + missing);
            self.error_squares += missing * missing;
            self.original_squares += original * original;
            self.allowed_squares += limit * limit;
            let half = allowed.step / 2.0;
            let clipped = limit > allowed.below.min(allowed.above);
            let error = if clipped { (-missing).clamp(-half, half) } else { -missing };
            let own = Line {
                products: run * error,
                squares: run * run,
                variance: run * run * allowed.step * allowed.step / 12.0,
            };
            line.add(&own);
            if let Some(column) = self.columns.get_mut(column) {
                column.add(&own);
            }
        }
        self.whole.add(&line);
        self.rows.push((row, line));
        self.rows_beyond += usize::from(self.beyond > before);
    }

    /// A run that is scaled up moves away from zero: of a positive original down the room below it, and so on.
    fn add_room(&mut self, original: f64, above: f64, below: f64) {
        if original == 0.0 {
            return;
        }
        let (up, down) = if original > 0.0 { (below, above) } else { (above, below) };
        self.room.0 = self.room.0.min((up / original.abs()).max(0.0));
        self.room.1 = self.room.1.min((down / original.abs()).max(0.0));
    }
}

fn relative(error: f64, norm: f64) -> f64 {
    match (error, norm) {
        (0.0, _) => 0.0,
        (_, 0.0) => f64::INFINITY,
        _ => (error / norm).sqrt(),
    }
}
