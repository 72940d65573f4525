//! How far a stored weight may lie from the number that it was rounded from.
//!
//! Every quantiser of the ggml project ends by giving each element the code that is nearest under the block's final scale
//! (the simple types: under the scale before it was rounded to f16). So an element is off by half a step at most, but for
//! elements beyond the first or last code, which a search for good scales leaves outside on purpose. That holds with and
//! without an importance matrix. Only Q4_0, Q4_1, Q5_0 and Q5_1 have quantisers whose codes are searched as well.

use crate::error::Result;
use crate::model::quant::{scale_elements, scales, step};
use crate::model::{TensorType, Weight};

/// Half a step, and a hundredth of one for the f32 arithmetic of quantisers: a code is `x / scale`, some 100 at most,
/// in a few roundings of 2^-24 each; ties that fall either way are at half a step.
const NEAREST: f64 = 0.51;

/// Steps that an element beyond the codes may be off, and any element whose code was searched. Measured with the
/// quantisers of ggml 0.25 and importance matrices of log-normal weights (sigma 2) on trained and on t-distributed
/// (3 degrees of freedom) weights: 16.2 beyond the last code of Q6_K, and 7.9 among searched codes.
const BEYOND: f64 = 20.0;
const SEARCHED: f64 = 10.0;

/// One unit in the last place of a plain element: rounding to the nearest is off by half of it, truncation by one.
const PLAIN: f64 = 1.0;

/// Half the distance between the smallest f16 numbers, and the relative rounding error of all others.
const F16_LEAST: f64 = 1.0 / (1u64 << 25) as f64;
const F16_RELATIVE: f64 = 1.0 / (1u64 << 11) as f64;

/// How codes were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// Each the nearest.
    Nearest,
    /// By a search for the least weighted error of the block.
    Searched,
}

impl Codes {
    /// Whether ggml has a quantiser of the type that searches codes: those for importance matrices.
    pub(super) fn may_be_searched(tensor_type: TensorType) -> bool {
        matches!(tensor_type, TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q5_1)
    }
}

/// How far below and above a stored value the original may lie.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Allowance {
    pub(super) below: f64,
    pub(super) above: f64,
    /// The step; of plain elements the unit in the last place.
    pub(super) step: f64,
}

impl Allowance {
    fn even(allowed: f64, step: f64) -> Self {
        Allowance { below: allowed, above: allowed, step }
    }
}

/// The allowances of canonical row `row` of `weight`, whose values are `values`. `None` where the blocks of a row are
/// not consecutive: then nobody can say which elements share a scale; and for FP8, whose factors lie elsewhere.
pub(super) fn allowances(
    weight: &Weight,
    row: usize,
    values: &[f32],
    codes: Codes,
    out: &mut Vec<Allowance>,
) -> Result<Option<()>> {
    out.clear();
    let kind = weight.tensor_type;
    if kind == TensorType::F8E4M3 {
        return Ok(None);
    }
    let Some(shared) = scale_elements(kind) else {
        out.extend(values.iter().map(|value| {
            let unit = last_place(kind, *value);
            Allowance::even(PLAIN * unit, unit)
        }));
        return Ok(Some(()));
    };
    let Some(packed) = weight.row_bytes(row) else { return Ok(None) };
    let mut under = vec![0f32; values.len() / shared];
    scales(kind, packed, &mut under)?;
    let block = kind.block_elements();
    for (values, under) in values.chunks(block).zip(under.chunks(block / shared)) {
        let unresolved = unresolved(kind, values, under);
        for (values, scale) in values.chunks(shared).zip(under) {
            group(kind, codes, *scale, values, unresolved, out);
        }
    }
    Ok(Some(()))
}

/// The allowances of elements that share a scale.
fn group(kind: TensorType, codes: Codes, scale: f32, values: &[f32], unresolved: f64, out: &mut Vec<Allowance>) {
    if scale == 0.0 {
        out.extend(values.iter().map(|_| Allowance::even(unresolved, 0.0)));
        return;
    }
    let largest = values.iter().fold(f32::NEG_INFINITY, |most, value| most.max(*value));
    let least = values.iter().fold(f32::INFINITY, |least, value| least.min(*value));
    let slack = f64::from(largest.abs().max(least.abs())) * scale_rounding(kind, scale);
    for value in values {
        let step = f64::from(step(kind, scale, *value));
        let near = slack + step * if codes == Codes::Searched { SEARCHED } else { NEAREST };
        let mut allowed = Allowance::even(near, step);
        let (low, high) = ends(kind, *value, scale, least, largest);
        let beyond = slack + step * if codes == Codes::Searched { BEYOND } else { beyond(kind) };
        if low {
            allowed.below = beyond;
        }
        if high {
            allowed.above = beyond;
        }
        out.push(allowed);
    }
}

/// Steps by which elements beyond the codes may be off.
fn beyond(kind: TensorType) -> f64 {
    match kind {
        // The element of largest magnitude has code -8 (-16); one of the other sign that is as large would need +8.
        TensorType::Q4_0 | TensorType::Q5_0 => 1.0 + NEAREST - 0.5,
        // The power of two is that of the largest magnitude, so this is below 8 where 6 is the last value: one step of 2.
        TensorType::Mxfp4 => 1.0,
        // Scale and minimum are those of the extremes.
        TensorType::Q8_0 | TensorType::Q4_1 | TensorType::Q5_1 => NEAREST,
        _ => BEYOND,
    }
}

/// Whether the value has the first or the last code: nothing below or above it can be held. With a minimum the codes are
/// not known: then it is whether nothing in the group is below or above it.
fn ends(kind: TensorType, value: f32, scale: f32, least: f32, largest: f32) -> (bool, bool) {
    let (first, last) = match kind {
        TensorType::Q4_0 => (-8.0, 7.0),
        TensorType::Q5_0 => (-16.0, 15.0),
        TensorType::Q3K => (-4.0, 3.0),
        TensorType::Q6K => (-32.0, 31.0),
        TensorType::Iq4Nl | TensorType::Iq4Xs => (-127.0, 113.0),
        TensorType::Mxfp4 => (-12.0, 12.0),
        _ => return (value == least, value == largest),
    };
    // Codes are whole but for the rounding of the product that they come from.
    let code = value / scale;
    let (low, high) = (code < first + 0.5, code > last - 0.5);
    if scale < 0.0 { (high, low) } else { (low, high) }
}

/// Relative error of a scale in f16 (and of a minimum: three roundings of numbers up to the largest of the group), where
/// the codes were chosen before it was rounded. K-quants choose them after it, and MXFP4's scale is exact.
fn scale_rounding(kind: TensorType, scale: f32) -> f64 {
    let relative = F16_RELATIVE.max(F16_LEAST / f64::from(scale.abs()));
    match kind {
        TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 | TensorType::Iq4Nl => relative,
        TensorType::Q4_1 | TensorType::Q5_1 => 3.0 * relative,
        _ => 0.0,
    }
}

/// How large an element may be whose scale was rounded to 0: twice what half a unit of the scale gives the last code,
/// for searched scales, and the rounding of a minimum. The unit of a sub-block's scale is that of the block's largest
/// over its largest number, and of a scale in f16 the smallest number.
fn unresolved(kind: TensorType, values: &[f32], scales: &[f32]) -> f64 {
    let (last, numbers) = match kind {
        TensorType::Q2K => (3.0, 15.0),
        TensorType::Q3K => (4.0, 32.0),
        TensorType::Q4K => (15.0, 63.0),
        TensorType::Q5K => (31.0, 63.0),
        TensorType::Q6K => (32.0, 128.0),
        TensorType::Iq4Xs => (127.0, 32.0),
        TensorType::Q4_0 | TensorType::Q4_1 => (15.0, 1.0),
        TensorType::Q5_0 | TensorType::Q5_1 => (31.0, 1.0),
        TensorType::Mxfp4 => (12.0, 1.0),
        _ => (127.0, 1.0),
    };
    let largest = scales.iter().fold(0f64, |most, scale| most.max(f64::from(scale.abs())));
    let value = values.iter().fold(0f64, |most, value| most.max(f64::from(value.abs())));
    let of_blocks = if numbers > 1.0 { largest / numbers } else { 0.0 };
    let unit = of_blocks.max(2.0 * F16_LEAST * numbers);
    last * unit + if numbers > 1.0 { value / numbers } else { 2.0 * F16_LEAST }
}

/// One unit in the last place of a plain element.
fn last_place(kind: TensorType, value: f32) -> f64 {
    let (digits, least) = match kind {
        TensorType::F16 => (10, -14),
        TensorType::Bf16 => (7, -126),
        _ => (23, -126),
    };
    let exponent = ((value.to_bits() >> 23) & 0xff) as i32 - 127;
    f64::from(2f32).powi(exponent.max(least) - digits)
}
