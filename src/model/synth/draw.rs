//! Random weights in the bytes of an element type: uniform quants in every bit, scales that vary from block to block,
//! and factors that give the whole a wanted mean and spread.

use super::random::Stream;
use crate::error::{Error, Result};
use crate::model::TensorType;
use crate::model::quant::{ScaleMin, pack_scale_mins};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Plain elements that are drawn from one stream.
const PLAIN: usize = 256;

/// Bytes that one task fills, about: long beside the cost of a task, short beside a piece.
const TASK_BYTES: usize = 1 << 18;

/// Types whose elements or blocks are drawn.
pub const DRAWN: [TensorType; 7] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
];

/// Mean and standard deviation that elements shall have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub mean: f32,
    pub std: f32,
}

/// How the units of one tensor are drawn: each from the stream of its own number, so in any order.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    key: u64,
    unit: Unit,
}

/// A block, or 256 plain elements.
#[derive(Debug, Clone)]
enum Unit {
    F32(Uniform),
    F16(Uniform),
    Bf16(Uniform),
    Q8_0 { scales: [f16; 16] },
    Q4K { d: f16, dmin: f16 },
    Q5K { d: f16, dmin: f16 },
    Q6K { d: f16 },
}

/// Even between `mean - reach` and `mean + reach`.
#[derive(Debug, Clone, Copy)]
struct Uniform {
    mean: f32,
    reach: f32,
}

impl Draw {
    /// Draws elements of `tensor_type` with `spread` for the tensor with `key`.
    ///
    /// # Errors
    /// Unsupported for a block type with a mean, and for a type that is not drawn.
    pub(super) fn new(key: u64, tensor_type: TensorType, spread: Spread) -> Result<Self> {
        // A uniform distribution reaches sqrt(3) standard deviations to either side.
        let uniform = Uniform { mean: spread.mean, reach: spread.std * 3f32.sqrt() };
        let std = f64::from(spread.std);
        let unit = match tensor_type {
            TensorType::F32 => Unit::F32(uniform),
            TensorType::F16 => Unit::F16(uniform),
            TensorType::Bf16 => Unit::Bf16(uniform),
            _ if spread.mean != 0.0 => {
                return Err(Error::unsupported(format!("{} is drawn around 0 only", tensor_type.name())));
            }
            TensorType::Q8_0 => Unit::Q8_0 { scales: q8_0_scales(std) },
            TensorType::Q4K => {
                let (d, dmin) = centred(std, 16);
                Unit::Q4K { d, dmin }
            }
            TensorType::Q5K => {
                let (d, dmin) = centred(std, 32);
                Unit::Q5K { d, dmin }
            }
            TensorType::Q6K => Unit::Q6K { d: f16::from_f64(std / rms(k_scales()) / rms((-32..32).map(f64::from))) },
            other => {
                return Err(Error::unsupported(format!("random blocks of {} are not drawn", other.name())));
            }
        };
        Ok(Draw { key, unit })
    }

    /// Bytes of a unit; [`Draw::fill`] begins on one.
    pub(super) fn unit_bytes(&self) -> usize {
        match self.unit {
            Unit::F32(_) => PLAIN * TensorType::F32.block_bytes(),
            Unit::F16(_) | Unit::Bf16(_) => PLAIN * TensorType::F16.block_bytes(),
            Unit::Q8_0 { .. } => TensorType::Q8_0.block_bytes(),
            Unit::Q4K { .. } => TensorType::Q4K.block_bytes(),
            Unit::Q5K { .. } => TensorType::Q5K.block_bytes(),
            Unit::Q6K { .. } => TensorType::Q6K.block_bytes(),
        }
    }

    /// Fills `out` with the tensor's bytes from unit `first` on, on all threads of the pool that it runs in.
    pub(super) fn fill(&self, first: u64, out: &mut [u8]) {
        let unit_bytes = self.unit_bytes();
        let units = TASK_BYTES / unit_bytes;
        out.par_chunks_mut(units * unit_bytes).enumerate().for_each(|(task, out)| {
            let first = first + (task * units) as u64;
            for (unit, out) in (first..).zip(out.chunks_mut(unit_bytes)) {
                self.unit.fill(Stream::new(self.key, unit), out);
            }
        });
    }
}

impl Unit {
    /// Fills one unit; of plain elements it may be a shorter last one.
    fn fill(&self, mut stream: Stream, out: &mut [u8]) {
        match self {
            Unit::F32(uniform) => {
                let values = uniform.draw(&mut stream);
                let (out, _) = out.as_chunks_mut();
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
            }
            Unit::F16(uniform) => {
                let mut halves = [f16::ZERO; PLAIN];
                halves.convert_from_f32_slice(&uniform.draw(&mut stream));
                let (out, _) = out.as_chunks_mut();
                out.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_le_bytes());
            }
            Unit::Bf16(uniform) => {
                let values = uniform.draw(&mut stream);
                let (out, _) = out.as_chunks_mut();
                out.iter_mut().zip(values).for_each(|(out, value)| *out = bf16::from_f32(value).to_le_bytes());
            }
            Unit::Q8_0 { scales } => {
                let (d, quants) = out.split_at_mut(2);
                d.copy_from_slice(&scales[(stream.bits() >> 60) as usize].to_le_bytes());
                stream.fill(quants);
                quants.iter_mut().for_each(|quant| *quant = q8_0_quant(*quant).cast_unsigned());
            }
            Unit::Q4K { d, dmin } | Unit::Q5K { d, dmin } => {
                let (head, quants) = out.split_at_mut(16);
                head[..2].copy_from_slice(&d.to_le_bytes());
                head[2..4].copy_from_slice(&dmin.to_le_bytes());
                let scales = stream.bits().to_le_bytes().map(k_scale);
                head[4..].copy_from_slice(&pack_scale_mins(&scales.map(|scale| ScaleMin { scale, min: scale })));
                stream.fill(quants);
            }
            Unit::Q6K { d } => {
                let (quants, tail) = out.split_at_mut(192);
                stream.fill(quants);
                let (scales, factor) = tail.split_at_mut(16);
                stream.fill(scales);
                scales.iter_mut().for_each(|scale| *scale = q6_k_scale(*scale).cast_unsigned());
                factor.copy_from_slice(&d.to_le_bytes());
            }
        }
    }
}

impl Uniform {
    #[inline(always)]
    fn draw(&self, stream: &mut Stream) -> [f32; PLAIN] {
        // Half a step more than a signed number, so that no side has one more.
        let step = self.reach / 2f32.powi(31);
        let value = |bits: u32| self.mean + (bits.cast_signed() as f32 + 0.5) * step;
        let mut values = [0.0; PLAIN];
        for pair in values.as_chunks_mut::<2>().0 {
            let bits = stream.bits();
            *pair = [value(bits as u32), value((bits >> 32) as u32)];
        }
        values
    }
}

/// Scales of Q8_0 blocks: 16 sizes from 3/4 to 5/4, scaled so that the elements have `std`.
fn q8_0_scales(std: f64) -> [f16; 16] {
    let sizes: [f64; 16] = std::array::from_fn(|size| 0.75 + size as f64 / 32.0);
    let quants = rms((0..=u8::MAX).map(|byte| f64::from(q8_0_quant(byte))));
    sizes.map(|size| f16::from_f64(size * std / rms(sizes) / quants))
}

/// A quant from a random byte: -128 is none, because no quantiser makes it and then the mean is 0.
#[inline(always)]
fn q8_0_quant(byte: u8) -> i8 {
    if byte == 0x80 { 0 } else { byte.cast_signed() }
}

/// A sub-block's scale from a random byte: 16 to 47, the middle of what 6 bits hold.
#[inline(always)]
fn k_scale(byte: u8) -> u8 {
    16 + (byte & 31)
}

fn k_scales() -> impl Iterator<Item = f64> {
    (0..=u8::MAX).map(|byte| f64::from(k_scale(byte)))
}

/// A signed scale of Q6_K: its quants have the mean -1/2, and with both signs the elements have the mean 0.
#[inline(always)]
fn q6_k_scale(byte: u8) -> i8 {
    let scale = k_scale(byte).cast_signed();
    if byte & 0x80 == 0 { scale } else { -scale }
}

/// Factors of scales and minima for elements of `std` around exactly 0, where `levels` quants are equally likely.
///
/// Minimum and scale of a sub-block are the same small integer, so the quants' centre `(levels - 1) / 2` times `d`
/// has to be `dmin` exactly: `d` is the nearest binary16 below what `std` asks for with room for that product, at most
/// 3 % less.
fn centred(std: f64, levels: u8) -> (f16, f16) {
    let centre = f64::from(levels - 1) / 2.0;
    let quants = rms((0..levels).map(|quant| f64::from(quant) - centre));
    let wanted = f16::from_f64(std / rms(k_scales()) / quants);
    let product = |d: f16| f16::from_f64(centre * d.to_f64());
    let is_exact = |d: &f16| product(*d).to_f64() == centre * d.to_f64();
    let d = (0..=wanted.to_bits()).rev().map(f16::from_bits).find(is_exact).unwrap_or(f16::ZERO);
    (d, product(d))
}

/// Root of the mean of squares.
fn rms(values: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) = values.into_iter().fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value * value));
    (sum / f64::from(count)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quant::dequantize;

    fn drawn(tensor_type: TensorType, spread: Spread, elements: usize) -> (Vec<u8>, Vec<f32>) {
        let draw = Draw::new(7, tensor_type, spread).unwrap();
        let mut bytes = vec![0xAA; tensor_type.row_bytes(elements).unwrap()];
        draw.fill(0, &mut bytes);
        let mut values = vec![f32::NAN; elements];
        dequantize(tensor_type, &bytes, &mut values).unwrap();
        (bytes, values)
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
        let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    /// Of 2^18 draws the mean is off by std / 512, and five times that is the limit. The spread is off by about 0.2 %
    /// and by the rounding of factors: down by up to 3 % of Q5_K's `d`, less of all others.
    #[test]
    fn elements_have_the_mean_and_spread_that_was_asked_for() {
        for tensor_type in DRAWN {
            // Columns of 64, of a 7B model's widths, and of a width whose factors are subnormal halves.
            for columns in [64, 3584, 18944, 1 << 20] {
                let std = 1.0 / (columns as f32).sqrt();
                let (_, values) = drawn(tensor_type, Spread { mean: 0.0, std }, 1 << 18);
                let (mean, found) = moments(&values);
                let (std, what) = (f64::from(std), format!("{} of {columns}: {mean} {found}", tensor_type.name()));
                assert!(mean.abs() < 0.01 * std, "{what}");
                assert!((0.96..1.01).contains(&(found / std)), "{what}");
            }
        }
    }

    #[test]
    fn plain_elements_may_have_a_mean_and_blocks_may_not() {
        let spread = Spread { mean: 1.0, std: 0.1 };
        for tensor_type in DRAWN {
            match tensor_type.block_elements() {
                1 => {
                    let (mean, std) = moments(&drawn(tensor_type, spread, 1 << 16).1);
                    assert!((mean - 1.0).abs() < 2e-3 && (std - 0.1).abs() < 2e-3, "{mean} {std}");
                }
                _ => assert!(Draw::new(7, tensor_type, spread).is_err()),
            }
        }
    }

    /// Bytes follow from their place: pieces and threads change nothing, and a shorter tensor is a prefix.
    #[test]
    fn any_piece_can_be_drawn_alone() {
        for tensor_type in DRAWN {
            let draw = Draw::new(7, tensor_type, Spread { mean: 0.0, std: 0.02 }).unwrap();
            let unit = draw.unit_bytes();
            let (whole, _) = drawn(tensor_type, Spread { mean: 0.0, std: 0.02 }, 1 << 20);
            for (first, units) in [(0, 1), (1, 3), (1000, 24)] {
                let mut piece = vec![0; units * unit];
                draw.fill(first as u64, &mut piece);
                assert!(piece == whole[first * unit..][..units * unit], "{} {first}", tensor_type.name());
            }
        }
        let (short, _) = drawn(TensorType::F32, Spread { mean: 0.0, std: 1.0 }, 300);
        let (long, _) = drawn(TensorType::F32, Spread { mean: 0.0, std: 1.0 }, 512);
        assert!(long.starts_with(&short));
    }

    /// Every bit of the quants and every scale is drawn: 4096 blocks hold each at least once and none always.
    #[test]
    fn blocks_differ_in_quants_and_scales() {
        for tensor_type in [TensorType::Q8_0, TensorType::Q4K, TensorType::Q5K, TensorType::Q6K] {
            let (bytes, _) = drawn(tensor_type, Spread { mean: 0.0, std: 0.02 }, 4096 * tensor_type.block_elements());
            let fixed = match tensor_type {
                TensorType::Q8_0 => 1..2,
                TensorType::Q6K => 208..210,
                _ => 0..4,
            };
            for at in (0..tensor_type.block_bytes()).filter(|at| !fixed.contains(at)) {
                let column = || bytes.iter().skip(at).step_by(tensor_type.block_bytes());
                let varying = column().fold(0, |or, byte| or | byte) ^ column().fold(0xFF, |and, byte| and & byte);
                assert!(varying != 0, "{} byte {at} never changes", tensor_type.name());
            }
        }
    }
}
