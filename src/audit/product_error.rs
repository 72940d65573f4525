//! Errors of a product whose weights were quantised, against what that rounding is expected to give.
//!
//! An element of a quantised weight is off by a step's uniform error, of variance `step^2 / 12`; the activations' rounding
//! is emulated. So the error of `y_to = sum_j x_tj w_oj` has the variance `sum_j x_tj^2 s_oj^2 / 12`, independent from
//! output to output; over the tokens it is one draw of the weights, and the covariance of two tokens is the same sum with
//! `x_tj x_uj`. Sums over tokens are judged by that covariance, with the steps of a matrix taken as those of its rows times
//! those of its columns.

use super::channels::median;
use super::expected_step::expected_steps;
use crate::backend::{Matrix, ReferenceWeight, exact_product};
use crate::error::Result;
use crate::model::TensorType;
use rayon::prelude::*;
use std::ops::Range;

/// Tokens whose rows are judged element by element: a fault of a weight is in all tokens.
pub(super) const SAMPLE: usize = 48;

/// Pieces that rows of a weight are read in, each with sums for every column: bounds memory, and keeps the order of sums.
const PIECES: usize = 64;

/// Limits, in standard deviations of the expected rounding. A normal variable goes beyond 6 once in 10^9, and the largest
/// weights have 10^9 elements; uniform errors stay below. Blocks are searched, weights have outliers and steps are
/// estimated: that is the rest. See `docs/audit.md` for what unbroken runs come to.
const SLOPE: f64 = 6.0;
const ELEMENT: f64 = 8.0;
const OUTPUT_SLOPE: f64 = 8.0;
const OUTPUT_SIZE: f64 = 12.0;
const INPUT_SLOPE: f64 = 9.0;

/// Errors of a row of which many elements are judged together, over the expected.
const ROW_SIZE: f64 = 3.0;

/// What a quantiser that searches its scales leaves of a slope, over `variance of the errors / squares of the values`;
/// measured on all types of ggml: 0.5 to 1.3.
const BIAS: f64 = 1.5;

/// The slope that an importance matrix may leave, whatever the type: scales are fitted to the weights of large inputs.
/// Measured with log-normal weights (sigma 2) on all types of ggml: 0.0056 at the most beside [`BIAS`].
const IMPORTANCE: f64 = 0.006;

/// The slope that a quantiser may leave of a whole tensor; `noise` is the variance of the errors over the squares.
pub(super) fn slope_bias(kind: TensorType, noise: f64) -> f64 {
    match kind {
        // No search: the scale is that of the extreme.
        TensorType::Q8_0 | TensorType::Mxfp4 => BIAS * noise,
        _ => BIAS * noise + IMPORTANCE,
    }
}

/// How far the spread of a tensor's own errors may widen the limits.
const WIDEST: f64 = 2.0;

/// Sums in f32 are off by this much of their result.
const SUMS: f64 = 1e-6;

/// How large rounding errors are in each row and column of a weight: the variance of an element is the product of both.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) rows: Vec<f64>,
    columns: Vec<f64>,
    /// Sum over the rows of the squared weights over the row's variance.
    signal: Vec<f64>,
    /// Sum of all variances over that of all squares.
    noise: f64,
}

impl Spread {
    /// Reads the whole weight once.
    pub(super) fn of(weight: &ReferenceWeight, kind: TensorType) -> Result<Self> {
        let (n, k) = (weight.rows(), weight.columns());
        let pieces: Vec<Spread> =
            pieces(n).into_par_iter().map(|rows| Spread::of_rows(weight, kind, rows, k)).collect::<Result<_>>()?;
        let mut whole = Spread { rows: Vec::with_capacity(n), columns: vec![0.0; k], signal: vec![0.0; k], noise: 0.0 };
        let mut squares = 0.0;
        for piece in pieces {
            whole.rows.extend(piece.rows);
            add(&mut whole.columns, &piece.columns);
            add(&mut whole.signal, &piece.signal);
            squares += piece.noise;
        }
        let total: f64 = whole.rows.iter().sum();
        whole.noise = if squares > 0.0 { total * k as f64 / squares } else { 0.0 };
        // The mean over the columns is 1.
        whole.columns.iter_mut().for_each(|sum| *sum = if total > 0.0 { *sum / total } else { 0.0 });
        Ok(whole)
    }

    /// The same of some rows: `columns` are sums of variances, `noise` the sum of the squared weights.
    fn of_rows(weight: &ReferenceWeight, kind: TensorType, rows: Range<usize>, k: usize) -> Result<Self> {
        let (mut values, mut steps) = (vec![0f32; k], vec![0f32; k]);
        let mut part = Spread { rows: Vec::new(), columns: vec![0.0; k], signal: vec![0.0; k], noise: 0.0 };
        for row in rows {
            weight.row(row, &mut values)?;
            expected_steps(kind, &values, &mut steps);
            let mut total = 0.0;
            for (sum, step) in part.columns.iter_mut().zip(&steps) {
                let variance = f64::from(*step) * f64::from(*step) / 12.0;
                *sum += variance;
                total += variance;
            }
            let mean = total / k as f64;
            part.rows.push(mean);
            for (sum, value) in part.signal.iter_mut().zip(&values) {
                let square = f64::from(*value) * f64::from(*value);
                part.noise += square;
                *sum += if mean > 0.0 { square / mean } else { 0.0 };
            }
        }
        Ok(part)
    }

    /// `sum_j x_j y_j` times the variance of column `j`: with a row's variance the covariance of two tokens' errors.
    pub(super) fn covariance(&self, x: &[f32], y: &[f32]) -> f64 {
        let terms = x.iter().zip(y).zip(&self.columns);
        terms.map(|((x, y), variance)| f64::from(*x) * f64::from(*y) * variance).sum()
    }
}

fn pieces(rows: usize) -> Vec<Range<usize>> {
    let each = rows.div_ceil(PIECES).max(1);
    (0..rows).step_by(each).map(|row| row..(row + each).min(rows)).collect()
}

fn add(sums: &mut [f64], terms: &[f64]) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

/// The variance that rounding gives to each element of a weight.
struct Variances<'a> {
    weight: &'a ReferenceWeight,
    kind: TensorType,
}

impl Matrix for Variances<'_> {
    fn rows(&self) -> usize {
        self.weight.rows()
    }

    fn columns(&self) -> usize {
        self.weight.columns()
    }

    fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let mut values = vec![0f32; out.len()];
        self.weight.row(row, &mut values)?;
        expected_steps(self.kind, &values, out);
        out.iter_mut().for_each(|step| *step = *step * *step / 12.0);
        Ok(())
    }
}

/// Rows of some tokens: what went into a product, what should have come out and what did, without a bias or a factor
/// behind the product.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) positions: Vec<usize>,
    pub(super) x: Vec<f32>,
    pub(super) expected: Vec<f64>,
    pub(super) recorded: Vec<f64>,
}

/// A figure and what it may be.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) limit: f64,
}

impl Measure {
    pub(super) fn over(&self) -> f64 {
        if self.value.is_nan() { f64::INFINITY } else { self.value.abs() / self.limit }
    }
}

/// What was found of a sample.
#[derive(Debug, Default)]
pub(super) struct ProductError {
    pub(super) measures: Vec<Measure>,
    /// Recorded over expected, less one.
    pub(super) slope: f64,
    /// The output whose slope stands out most.
    pub(super) output: Option<(f64, u32)>,
    pub(super) worst_position: Option<usize>,
    /// The smallest factor of the whole weight, less one, that would have been seen.
    pub(super) detects: f64,
    /// The smallest factor that would have been seen on one output and on one input, in the middle of all.
    pub(super) sees: (f64, f64),
    /// The relative error that rounding is expected to give.
    pub(super) expected: f64,
}

/// Judges a sample of a product with `weight`, which the run has in blocks of `kind`.
pub(super) fn judge(
    sample: &Sample,
    weight: &ReferenceWeight,
    kind: TensorType,
    spread: &Spread,
) -> Result<ProductError> {
    let (tokens, n, k) = (sample.positions.len(), weight.rows(), weight.columns());
    let squares: Vec<f32> = sample.x.iter().map(|x| x * x).collect();
    let variances = exact_product(&squares, &Variances { weight, kind })?;
    let rows: Vec<&[f32]> = sample.x.chunks_exact(k).collect();
    let covariance: Vec<f64> = rows.iter().flat_map(|x| rows.iter().map(|y| spread.covariance(x, y))).collect();
    let errors: Vec<f64> = sample.recorded.iter().zip(&sample.expected).map(|(r, e)| r - e).collect();
    let mut found = ProductError::default();
    found.elements(sample, &errors, &variances, n);
    let trace: f64 = (0..tokens).map(|token| covariance[token * tokens + token]).sum();
    // Of an output whose large weights meet large inputs, the errors are larger than its row's mean variance says.
    let own = |output: usize| {
        let variance: f64 = variances.iter().skip(output).step_by(n).map(|variance| f64::from(*variance)).sum();
        if trace > 0.0 { variance / trace } else { 0.0 }
    };
    let own: Vec<f64> = (0..n).map(own).collect();
    found.outputs(kind, sample, &errors, &covariance, (&own, trace));
    found.inputs(sample, &errors, &covariance, weight, spread)?;
    Ok(found)
}

/// A spread over the expected one, as far as it may widen limits.
fn widening(spread: f64) -> f64 {
    if spread.is_finite() { spread.clamp(1.0, WIDEST) } else { WIDEST }
}

/// 1.4826 times the median distance from the median: the standard deviation of a normal variable.
fn robust_spread(values: &[f64]) -> (f64, f64) {
    let center = median(values.iter().copied()).unwrap_or(0.0);
    (center, 1.4826 * median(values.iter().map(|value| (value - center).abs())).unwrap_or(0.0))
}

impl ProductError {
    /// The measure that is furthest beyond its limit, or nearest to it.
    pub(super) fn worst(&self) -> Option<&Measure> {
        self.measures.iter().max_by(|a, b| a.over().total_cmp(&b.over()))
    }

    /// The largest quotient of a measure and its limit.
    pub(super) fn over(&self) -> f64 {
        self.worst().map_or(0.0, Measure::over)
    }

    /// Keeps only the measure that says most, of many of one sort.
    pub(super) fn keep_worst(&mut self) {
        if let [first, second] = self.measures.as_slice() {
            let last = usize::from(second.over() > first.over());
            self.measures.swap(0, last);
            self.measures.truncate(1);
        }
    }

    /// Takes over what another weight of the same operation came to; figures are those of the one that is furthest off.
    pub(super) fn join(&mut self, other: ProductError) {
        let larger = self.detects == 0.0 || other.over() > self.over();
        self.measures.extend(other.measures);
        if larger {
            self.sees = other.sees;
            (self.slope, self.output, self.worst_position) = (other.slope, other.output, other.worst_position);
        }
        self.detects = self.detects.max(other.detects);
        self.expected = self.expected.max(other.expected);
    }

    /// Takes over a slope over the recorded values, and its limit; `clean` is what an unbroken weight may have.
    pub(super) fn slope(&mut self, slope: f64, limit: f64, clean: f64) {
        self.slope = if slope < 1.0 { 1.0 / (1.0 - slope) - 1.0 } else { f64::INFINITY };
        // A fault adds to what the weight has without it.
        self.detects = factor(limit + clean) - 1.0;
        self.measures.push(Measure { what: "slope".to_owned(), value: slope, limit });
    }

    /// Single elements, and the size of the errors of each output.
    fn elements(&mut self, sample: &Sample, errors: &[f64], variances: &[f32], n: usize) {
        let tokens = sample.positions.len().max(1) as f64;
        let mut largest = (0.0, 0, 0);
        let mut chi = vec![0f64; n];
        let total = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
        let squares = total(&mut sample.expected.iter().map(|y| y * y));
        let variance = total(&mut variances.iter().map(|variance| f64::from(*variance)));
        self.expected = if squares > 0.0 { (variance / squares).sqrt() } else { 0.0 };
        let rows = errors.chunks_exact(n).zip(variances.chunks_exact(n)).zip(sample.expected.chunks_exact(n));
        for (token, ((errors, variances), expected)) in rows.enumerate() {
            let floor = SUMS * SUMS * expected.iter().map(|y| y * y).sum::<f64>() / n as f64;
            for (output, ((error, variance), chi)) in errors.iter().zip(variances).zip(&mut chi).enumerate() {
                let square = error * error / (f64::from(*variance) + floor).max(f64::MIN_POSITIVE);
                *chi += square / tokens;
                if square > largest.0 || square.is_nan() {
                    largest = (square, token, output);
                }
            }
        }
        self.worst_position = sample.positions.get(largest.1).copied();
        let sizes: Vec<f64> = chi.iter().map(|chi| chi.sqrt()).collect();
        let (center, spread) = robust_spread(&sizes);
        self.measures.push(Measure {
            what: format!("element {} in standard deviations", largest.2),
            value: largest.0.sqrt(),
            limit: ELEMENT * widening(center),
        });
        // With one token the size of an error is that of a normal variable; with many it is nearly the same everywhere.
        let spread = spread.max(0.15 * center).max(0.15);
        let z = sizes.iter().map(|size| (size - center) / spread).enumerate();
        if let Some((output, z)) = z.max_by(|a, b| a.1.total_cmp(&b.1)) {
            let what = format!("size of the errors of output {output}");
            self.measures.push(Measure { what, value: z, limit: OUTPUT_SIZE });
        }
    }

    /// The slope of all outputs, and of each.
    fn outputs(
        &mut self,
        kind: TensorType,
        sample: &Sample,
        errors: &[f64],
        covariance: &[f64],
        (rows, trace): (&[f64], f64),
    ) {
        let n = rows.len();
        let column =
            |values: &[f64], output: usize| -> Vec<f64> { values.iter().skip(output).step_by(n).copied().collect() };
        let (mut products, mut squares, mut variance) = (0.0, 0.0, 0.0);
        let (mut outputs, mut floors) = (Vec::with_capacity(n), Vec::new());
        for (output, own) in rows.iter().enumerate() {
            let (recorded, errors) = (column(&sample.recorded, output), column(errors, output));
            let product: f64 = recorded.iter().zip(&errors).map(|(r, e)| r * e).sum();
            let square: f64 = recorded.iter().map(|r| r * r).sum();
            let rounding = own * quadratic(&recorded, covariance);
            if *own > 0.0 && rounding > 0.0 {
                products += product / own;
                squares += square / own;
                variance += rounding / (own * own);
                outputs.push(product / rounding.sqrt());
                floors.push(rounding.sqrt() / square);
            } else {
                outputs.push(0.0);
            }
        }
        if squares == 0.0 || !products.is_finite() {
            return;
        }
        let (center, robust) = robust_spread(&outputs);
        let scale = widening(robust);
        let bias = slope_bias(kind, outputs.len() as f64 * trace / squares);
        let error = variance.sqrt() / squares;
        self.slope(products / squares, SLOPE * scale * error + bias, bias + 3.0 * scale * error);
        let floor = median(floors.into_iter()).unwrap_or(f64::INFINITY);
        self.sees.0 = factor((OUTPUT_SLOPE + 3.0) * robust.max(0.5) * floor);
        let away: Vec<f64> = outputs.iter().map(|t| (t - center).abs() / robust.max(0.5)).collect();
        if let Some((output, z)) = away.into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)) {
            self.output = u32::try_from(output).ok().map(|output| (z, output));
            self.measures.push(Measure { what: format!("slope of output {output}"), value: z, limit: OUTPUT_SLOPE });
        }
    }

    /// The slope of each input: what of the errors goes with its column of the weight.
    fn inputs(
        &mut self,
        sample: &Sample,
        errors: &[f64],
        covariance: &[f64],
        weight: &ReferenceWeight,
        spread: &Spread,
    ) -> Result<()> {
        let (n, k, tokens) = (weight.rows(), weight.columns(), sample.positions.len());
        let parts: Vec<Vec<f64>> = pieces(n)
            .into_par_iter()
            .map(|rows| {
                let (mut values, mut sums, mut with) = (vec![0f32; k], vec![0f64; k], vec![0f64; k]);
                for row in rows {
                    let own = spread.rows.get(row).copied().unwrap_or(0.0);
                    if own == 0.0 {
                        continue;
                    }
                    weight.row(row, &mut values)?;
                    with.fill(0.0);
                    for (x, error) in sample.x.chunks_exact(k).zip(errors.iter().skip(row).step_by(n)) {
                        with.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x) * error);
                    }
                    let terms = sums.iter_mut().zip(&values).zip(&with);
                    terms.for_each(|((sum, value), with)| *sum += f64::from(*value) * with / own);
                }
                Ok(sums)
            })
            .collect::<Result<_>>()?;
        let mut sums = vec![0f64; k];
        parts.iter().for_each(|part| add(&mut sums, part));
        let mut away = Vec::with_capacity(k);
        let (mut biases, mut units) = (Vec::with_capacity(k), Vec::with_capacity(k));
        for (input, (sum, signal)) in sums.iter().zip(&spread.signal).enumerate() {
            let x: Vec<f64> = (0..tokens).map(|token| f64::from(sample.x[token * k + input])).collect();
            let deviation = (quadratic(&x, covariance) * signal).sqrt();
            let square: f64 = x.iter().map(|x| x * x).sum();
            let (z, bias) = match deviation > 0.0 {
                true => (sum / deviation, BIAS * spread.noise * square * signal / deviation),
                false => (0.0, 0.0),
            };
            away.push(z);
            biases.push(bias);
            units.push(deviation / (square * signal).max(f64::MIN_POSITIVE));
        }
        let (_, robust) = robust_spread(&away);
        let scale = widening(robust);
        let seen = units.iter().zip(&biases).map(|(unit, bias)| ((INPUT_SLOPE + 3.0) * scale + bias) * unit);
        self.sees.1 = median(seen).map_or(f64::INFINITY, |sees| 1.0 + sees);
        let over = away.iter().zip(&biases).map(|(z, bias)| (z.abs(), INPUT_SLOPE * scale + bias));
        if let Some((input, (z, limit))) = over.enumerate().max_by(|a, b| (a.1.0 / a.1.1).total_cmp(&(b.1.0 / b.1.1))) {
            self.measures.push(Measure { what: format!("slope of input {input}"), value: z, limit });
        }
        Ok(())
    }
}

/// The factor whose part of the result beyond the expected is `excess`.
fn factor(excess: f64) -> f64 {
    if excess < 1.0 { 1.0 / (1.0 - excess) } else { f64::INFINITY }
}

/// `v' C v`.
fn quadratic(v: &[f64], covariance: &[f64]) -> f64 {
    let rows = covariance.chunks_exact(v.len().max(1));
    v.iter().zip(rows).map(|(a, row)| a * row.iter().zip(v).map(|(c, b)| c * b).sum::<f64>()).sum()
}

/// What is said of the errors of a whole row, in expected ones.
pub(super) fn row_measure(position: usize, error_squares: f64, variance: f64, outputs: usize) -> Measure {
    let size = if error_squares == 0.0 { 0.0 } else { (error_squares / variance.max(f64::MIN_POSITIVE)).sqrt() };
    // The fewer outputs, the more a mean of squares varies.
    let limit = ROW_SIZE + 6.0 / (outputs.max(1) as f64).sqrt();
    Measure { what: format!("size of the errors at position {position}"), value: size, limit }
}
