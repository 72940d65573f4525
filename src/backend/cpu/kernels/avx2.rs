//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! Every dot has one order of accumulation: lane `l` of eight sums the elements `l`, `l + 8`, ..; the lanes
//! are then added by [`sum_lanes`]. F16 has 32 lanes, in ggml's order: [`f16_dots`]. Tiles share loads between dots and
//! never change the order.
#![allow(unsafe_code)]

use super::attention;
use super::integer;
use super::quants::Quantised;
use crate::model::TensorType;
use crate::model::quant::K_BLOCK;
use std::arch::x86_64::*;

/// Elements of stored weights that convert to eight f32 lanes.
trait Element {
    const BYTES: usize;
    /// # Safety
    /// AVX2 and F16C are there, and `from` is valid for reading eight elements.
    unsafe fn load(from: *const u8) -> __m256;
}

struct F32;
struct F16;
struct Bf16;

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256 {
        // SAFETY: an unaligned load of the 32 bytes that the caller vouches for.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256 {
        // SAFETY: an unaligned load of the 16 bytes that the caller vouches for.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Element for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256 {
        // SAFETY: an unaligned load of the 16 bytes that the caller vouches for.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
}

/// Whether this processor runs these kernels.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Dots of `M` rows of f32 with `N` stored rows; all rows hold at least `k` elements.
pub(super) fn float_tile<const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: [&[u8]; N],
    tensor_type: TensorType,
    k: usize,
) -> [[f32; N]; M] {
    let bytes = match tensor_type {
        TensorType::F32 => F32::BYTES,
        _ => F16::BYTES,
    };
    assert!(x.iter().all(|row| row.len() >= k) && w.iter().all(|row| row.len() / bytes >= k));
    // SAFETY: this module runs only where `detected` said yes; the rows were just measured.
    unsafe {
        match tensor_type {
            TensorType::F16 => f16_tile(x, w, k),
            TensorType::Bf16 => tile::<Bf16, M, N>(x, w, k),
            _ => tile::<F32, M, N>(x, w, k),
        }
    }
}

/// Tiles of f16 weights go row by row: 32 lanes a dot leave no registers for more.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f16_tile<const M: usize, const N: usize>(x: [&[f32]; M], w: [&[u8]; N], k: usize) -> [[f32; N]; M] {
    let mut dots = [[0f32; N]; M];
    for (j, w) in w.into_iter().enumerate() {
        // SAFETY: the caller measured the rows.
        let column = unsafe { f16_dots(x, w, k) };
        for (row, dot) in dots.iter_mut().zip(column) {
            row[j] = dot;
        }
    }
    dots
}

/// Dots of `M` rows with one f16 row, over 32 lanes and added as ggml adds them, so that a product of an f16 file is
/// llama.cpp's bit for bit: whole multiples of 32 in f32, and what remains in f64.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn f16_dots<const M: usize>(x: [&[f32]; M], w: &[u8], k: usize) -> [f32; M] {
    let mut sums = [[_mm256_setzero_ps(); 4]; M];
    let whole = k & !31;
    for at in (0..whole).step_by(8) {
        // SAFETY: at + 8 <= k, and the caller measured all rows.
        unsafe {
            let weight = F16::load(w.as_ptr().wrapping_add(at.wrapping_mul(F16::BYTES)));
            for i in 0..M {
                let lanes = _mm256_loadu_ps(x[i].as_ptr().wrapping_add(at));
                let sum = &mut sums[i][at / 8 % 4];
                *sum = _mm256_fmadd_ps(lanes, weight, *sum);
            }
        }
    }
    let rest = &w[whole * F16::BYTES..];
    std::array::from_fn(|i| {
        let [a, b, c, d] = sums[i];
        let eight = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_hadd_ps(four, four);
        let vector = _mm_cvtss_f32(_mm_hadd_ps(two, two));
        let pairs = x[i][whole..k].iter().zip(rest.as_chunks::<2>().0);
        let product = |(x, w): (&f32, &[u8; 2])| f64::from(x * half::f16::from_le_bytes(*w).to_f32());
        if whole == k { vector } else { (f64::from(vector) + pairs.map(product).sum::<f64>()) as f32 }
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<E: Element, const M: usize, const N: usize>(x: [&[f32]; M], w: [&[u8]; N], k: usize) -> [[f32; N]; M] {
    let x = x.map(<[f32]>::as_ptr);
    let w = w.map(<[u8]>::as_ptr);
    let mut sums = [[_mm256_setzero_ps(); N]; M];
    let whole = k & !7;
    let mut at = 0usize;
    while at < whole {
        // SAFETY: at + 8 <= k, and the caller measured all rows.
        unsafe {
            let lanes: [__m256; M] = std::array::from_fn(|i| _mm256_loadu_ps(x[i].wrapping_add(at)));
            for j in 0..N {
                let weight = E::load(w[j].wrapping_add(at.wrapping_mul(E::BYTES)));
                for i in 0..M {
                    sums[i][j] = _mm256_fmadd_ps(lanes[i], weight, sums[i][j]);
                }
            }
        }
        at = at.wrapping_add(8);
    }
    if whole < k {
        let rest = k - whole;
        for j in 0..N {
            let mut tail = [0u8; 32];
            // SAFETY: copies the `rest` < 8 elements after `whole`, all within the measured rows.
            let weight = unsafe {
                let from = w[j].add(whole * E::BYTES);
                std::ptr::copy_nonoverlapping(from, tail.as_mut_ptr(), rest * E::BYTES);
                E::load(tail.as_ptr())
            };
            for i in 0..M {
                let mut tail = [0f32; 8];
                // SAFETY: as above.
                let lanes = unsafe {
                    std::ptr::copy_nonoverlapping(x[i].add(whole), tail.as_mut_ptr(), rest);
                    _mm256_loadu_ps(tail.as_ptr())
                };
                sums[i][j] = _mm256_fmadd_ps(lanes, weight, sums[i][j]);
            }
        }
    }
    sums.map(|row| row.map(|lanes| sum_lanes(lanes)))
}

/// The eight lanes added in one order: 4 + 4, 2 + 2, 1 + 1.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sum_lanes(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_extractf128_ps::<1>(lanes), _mm256_castps256_ps128(lanes));
    sum_four(four)
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sum_four(four: __m128) -> f32 {
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// [`attention::scores`] with fused products.
pub(super) fn scores(q: &[f32], keys: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fused(q: &[f32], keys: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
        attention::scores::<true>(q, keys, stride, scale, out);
    }
    // SAFETY: this module runs only where `detected` said yes.
    unsafe { fused(q, keys, stride, scale, out) }
}

/// [`attention::softmax`] with fused products.
pub(super) fn softmax(x: &[f32], out: &mut [f32]) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fused(x: &[f32], out: &mut [f32]) {
        attention::softmax::<true>(x, out);
    }
    // SAFETY: this module runs only where `detected` said yes.
    unsafe { fused(x, out) }
}

/// [`attention::weighted_sum`] with fused products.
pub(super) fn weighted_sum(p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fused(p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
        attention::weighted_sum::<true>(p, v, stride, out);
    }
    // SAFETY: this module runs only where `detected` said yes.
    unsafe { fused(p, v, stride, out) }
}

/// [`integer::tile`] compiled for AVX2: wider integer vectors, the same bits.
pub(super) fn integer_tile<const M: usize>(w: &[u8], tensor_type: TensorType, x: &Quantised, first: usize) -> [f32; M] {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn wide<const M: usize>(w: &[u8], tensor_type: TensorType, x: &Quantised, first: usize) -> [f32; M] {
        integer::tile(w, tensor_type, x, first)
    }
    // SAFETY: this module runs only where `detected` said yes.
    unsafe { wide(w, tensor_type, x, first) }
}

/// Dots of one stored quantised row with the rows `first..first + M` of quantised activations.
pub(super) fn quantised_tile<const M: usize>(
    w: &[u8],
    tensor_type: TensorType,
    x: &Quantised,
    first: usize,
) -> [f32; M] {
    let block = tensor_type.block_elements();
    let blocks = x.columns / block;
    assert!(x.block == block && w.len() / tensor_type.block_bytes() >= blocks);
    let rows: [Row<'_>; M] = std::array::from_fn(|i| Row {
        quants: &x.quants[(first + i) * x.columns..][..x.columns],
        scales: &x.scales[(first + i) * blocks..][..blocks],
        sums: if block == K_BLOCK { &x.sums[(first + i) * blocks * 16..][..blocks * 16] } else { &[] },
    });
    // SAFETY: this module runs only where `detected` said yes; every row was cut to its `blocks` blocks.
    unsafe {
        match tensor_type {
            TensorType::Q4K => k45::<false, M>(w, rows, blocks),
            TensorType::Q5K => k45::<true, M>(w, rows, blocks),
            TensorType::Q6K => k6(w, rows, blocks),
            _ => q8_0(w, rows, blocks),
        }
    }
}

/// One row of quantised activations.
#[derive(Clone, Copy)]
struct Row<'a> {
    quants: &'a [i8],
    scales: &'a [f32],
    /// Sums of 16 quants each, for blocks of 256.
    sums: &'a [i16],
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn half(low: u8, high: u8) -> f32 {
    let bits = i32::from(u16::from_le_bytes([low, high]));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

/// # Safety
/// `w` holds `blocks` blocks of 34 bytes; every row 32 quants and a scale for each.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_0<const M: usize>(w: &[u8], rows: [Row<'_>; M], blocks: usize) -> [f32; M] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_ps(); M];
    for (b, block) in w.as_chunks::<34>().0.iter().take(blocks).enumerate() {
        let d = half(block[0], block[1]);
        // SAFETY: the block has 32 bytes after its scale, each row 32 quants at 32 * b.
        unsafe {
            let q = _mm256_loadu_si256(block.as_ptr().add(2).cast());
            let magnitude = _mm256_sign_epi8(q, q);
            for i in 0..M {
                let x = _mm256_loadu_si256(rows[i].quants.as_ptr().add(b * 32).cast());
                // |q| * (x with q's sign): at most 2 * 128 * 127, so nothing saturates.
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, q));
                let dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(ones, pairs));
                let scale = _mm256_set1_ps(d * rows[i].scales.get_unchecked(b));
                sums[i] = _mm256_fmadd_ps(scale, dots, sums[i]);
            }
        }
    }
    sums.map(|lanes| sum_lanes(lanes))
}

/// Q4_K, and Q5_K with its fifth bits.
///
/// # Safety
/// `w` holds `blocks` blocks; every row 256 quants, 16 sums and a scale for each.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn k45<const FIFTH: bool, const M: usize>(w: &[u8], rows: [Row<'_>; M], blocks: usize) -> [f32; M] {
    let bytes = if FIFTH { 176 } else { 144 };
    let nibble = _mm256_set1_epi8(15);
    let mut sums = [_mm256_setzero_ps(); M];
    let mut mins_sums = [_mm_setzero_ps(); M];
    for (b, block) in w.chunks_exact(bytes).take(blocks).enumerate() {
        let (d, dmin) = (half(block[0], block[1]), half(block[2], block[3]));
        let (scales, mins) = scales_and_mins(block);
        let mut dots = [_mm256_setzero_si256(); M];
        // SAFETY: offsets stay within the block (its nibbles are the last 128 bytes, before them 32 bytes of
        // fifth bits) and within the 256 quants, 16 sums and one scale of each row's block.
        unsafe {
            let nibbles = block.as_ptr().add(bytes - 128);
            let fifths = _mm256_loadu_si256(block.as_ptr().add(16).cast());
            for pair in 0..4 {
                let packed = _mm256_loadu_si256(nibbles.add(32 * pair).cast());
                let mut low = _mm256_and_si256(packed, nibble);
                let mut high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
                if FIFTH {
                    low = _mm256_or_si256(low, fifth(fifths, 2 * pair));
                    high = _mm256_or_si256(high, fifth(fifths, 2 * pair + 1));
                }
                let low_scale = _mm256_set1_epi16(i16::from(scales[2 * pair]));
                let high_scale = _mm256_set1_epi16(i16::from(scales[2 * pair + 1]));
                for i in 0..M {
                    let x = rows[i].quants.as_ptr().add(b * 256 + 64 * pair);
                    let low_x = _mm256_loadu_si256(x.cast());
                    let high_x = _mm256_loadu_si256(x.add(32).cast());
                    let low = _mm256_madd_epi16(low_scale, _mm256_maddubs_epi16(low, low_x));
                    let high = _mm256_madd_epi16(high_scale, _mm256_maddubs_epi16(high, high_x));
                    dots[i] = _mm256_add_epi32(dots[i], _mm256_add_epi32(low, high));
                }
            }
            let mins = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(mins)));
            for i in 0..M {
                let scale = *rows[i].scales.get_unchecked(b);
                let parts = rows[i].sums.as_ptr().add(b * 16);
                let parts = _mm_hadd_epi16(_mm_loadu_si128(parts.cast()), _mm_loadu_si128(parts.add(8).cast()));
                let products = _mm_cvtepi32_ps(_mm_madd_epi16(mins, parts));
                mins_sums[i] = _mm_fmadd_ps(_mm_set1_ps(-(scale * dmin)), products, mins_sums[i]);
                sums[i] = _mm256_fmadd_ps(_mm256_set1_ps(scale * d), _mm256_cvtepi32_ps(dots[i]), sums[i]);
            }
        }
    }
    std::array::from_fn(|i| sum_lanes(sums[i]) + sum_four(mins_sums[i]))
}

/// Bit `bit` of every byte, moved to bit 4.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn fifth(bits: __m256i, bit: usize) -> __m256i {
    let mask = _mm256_set1_epi8((1u8 << bit) as i8);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, mask), mask);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// # Safety
/// `w` holds `blocks` blocks of 210 bytes; every row 256 quants, 16 sums and a scale for each.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn k6<const M: usize>(w: &[u8], rows: [Row<'_>; M], blocks: usize) -> [f32; M] {
    let (nibble, two) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let mut sums = [_mm256_setzero_ps(); M];
    for (b, block) in w.as_chunks::<210>().0.iter().take(blocks).enumerate() {
        let d = half(block[208], block[209]);
        let mut dots = [_mm256_setzero_si256(); M];
        // SAFETY: offsets stay within the block (128 bytes of nibbles, 64 of upper bits, 16 scales) and
        // within the 256 quants, 16 sums and one scale of each row's block.
        unsafe {
            let scales = block.as_ptr().add(192).cast::<i8>();
            for half in 0..2 {
                let low = _mm256_loadu_si256(block.as_ptr().add(64 * half).cast());
                let high = _mm256_loadu_si256(block.as_ptr().add(64 * half + 32).cast());
                let bits = _mm256_loadu_si256(block.as_ptr().add(128 + 32 * half).cast());
                let upper = [
                    _mm256_and_si256(_mm256_slli_epi16::<4>(bits), two),
                    _mm256_and_si256(_mm256_slli_epi16::<2>(bits), two),
                    _mm256_and_si256(bits, two),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(bits), two),
                ];
                let lower = [low, high, _mm256_srli_epi16::<4>(low), _mm256_srli_epi16::<4>(high)];
                for part in 0..4 {
                    let q = _mm256_or_si256(_mm256_and_si256(lower[part], nibble), upper[part]);
                    let scale = scales.add(8 * half + 2 * part);
                    let scale =
                        _mm256_setr_m128i(_mm_set1_epi16(i16::from(*scale)), _mm_set1_epi16(i16::from(*scale.add(1))));
                    for i in 0..M {
                        let x = rows[i].quants.as_ptr().add(b * 256 + 128 * half + 32 * part);
                        let pairs = _mm256_maddubs_epi16(q, _mm256_loadu_si256(x.cast()));
                        dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(scale, pairs));
                    }
                }
            }
            // Stored quants are 32 too large: take 32 * scale * sum of x away.
            let scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(scales.cast()));
            for i in 0..M {
                let parts = _mm256_loadu_si256(rows[i].sums.as_ptr().add(b * 16).cast());
                let excess = _mm256_slli_epi32::<5>(_mm256_madd_epi16(parts, scales));
                let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[i], excess));
                let scale = _mm256_set1_ps(rows[i].scales.get_unchecked(b) * d);
                sums[i] = _mm256_fmadd_ps(scale, exact, sums[i]);
            }
        }
    }
    sums.map(|lanes| sum_lanes(lanes))
}

/// The eight 6-bit scales and eight 6-bit minima of a Q4_K or Q5_K block (its bytes 4 to 15).
#[inline(always)]
fn scales_and_mins(block: &[u8]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (first, second, third) = (word(4), word(8), word(12));
    // Four at a time: the first four have their own bytes, the last four a nibble of the third word and the
    // two spare bits above the first four.
    let six = 0x3F3F_3F3F;
    let upper = |spare: u32| (spare >> 6 & 0x0303_0303) << 4;
    let scales = u64::from(first & six) | u64::from(third & 0x0F0F_0F0F | upper(first)) << 32;
    let mins = u64::from(second & six) | u64::from(third >> 4 & 0x0F0F_0F0F | upper(second)) << 32;
    (scales.to_le_bytes(), mins.to_le_bytes())
}
