//! Attention of one head for one token: scores, softmax, weighted sum.
//!
//! Plain Rust over 32 lanes, compiled once as it is and once for AVX2 with fused products. With those, the order of
//! every sum and the exponential are those of ggml's f32 path (its `ggml_vec_dot_f32` and `ggml_v_expf`, which has the
//! polynomial of Arm's optimized-routines), and the results are llama.cpp's bit for bit.

/// `a * b + c`, with one rounding where `FUSED`.
#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// 32 partial sums become one: 16 + 16, 8 + 8, 4 + 4, then neighbours.
#[inline(always)]
fn sum_lanes(lanes: [f32; 32]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| (lanes[i] + lanes[i + 16]) + (lanes[i + 8] + lanes[i + 24]));
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[1]) + (four[2] + four[3])
}

#[inline(always)]
fn dot<const FUSED: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<32>(), y.as_chunks::<32>());
    for (x, y) in xs.iter().zip(ys) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = multiply_add::<FUSED>(*x, *y, *lane);
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| f64::from(x * y)).sum();
    if x_rest.is_empty() { sum_lanes(lanes) } else { (f64::from(sum_lanes(lanes)) + rest) as f32 }
}

/// `out[j] = q . k_j * scale` for the keys `k_j = keys[j * stride..][..q.len()]`.
#[inline(always)]
pub(super) fn scores<const FUSED: bool>(q: &[f32], keys: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
    for (out, key) in out.iter_mut().zip(keys.chunks(stride.max(1))) {
        *out = dot::<FUSED>(q, &key[..q.len()]) * scale;
    }
}

/// `e^x` for `x <= 0` to 1.5 units in the last place; NaN stays NaN.
#[inline(always)]
fn exponential<const FUSED: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 in two parts, the first short enough that its multiples are exact.
    const LN2_HIGH: f32 = f32::from_bits(0x3F31_7200);
    const LN2_LOW: f32 = f32::from_bits(0x35BF_BE8E);
    /// Coefficients of b, b^2, ... b^5 of `e^b - 1` on half a step of ln 2.
    const C: [f32; 5] = [
        f32::from_bits(0x3F7F_FFF6),
        f32::from_bits(0x3EFF_FEDB),
        f32::from_bits(0x3E2A_AF33),
        f32::from_bits(0x3D2B_9F17),
        f32::from_bits(0x3C07_2010),
    ];
    if x < -87.0 {
        // The power of two below would leave the normal numbers.
        return f64::from(x).exp() as f32;
    }
    let shifted = multiply_add::<FUSED>(x, LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let b = multiply_add::<FUSED>(-n, LN2_LOW, multiply_add::<FUSED>(-n, LN2_HIGH, x));
    let square = b * b;
    let high = multiply_add::<FUSED>(C[4], b, C[3]);
    let low = multiply_add::<FUSED>(C[2], b, C[1]);
    let tail = multiply_add::<FUSED>(multiply_add::<FUSED>(high, square, low), square, C[0] * b);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    multiply_add::<FUSED>(power, tail, power)
}

/// Softmax, the largest taken away first; sums of eight are added in f64.
#[inline(always)]
pub(super) fn softmax<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (out, x) in out.iter_mut().zip(x) {
        *out = exponential::<FUSED>(x - largest);
    }
    let eight = |part: &[f32]| {
        let lane = |i: usize| part.get(i).copied().unwrap_or(0.0);
        let four: [f32; 4] = std::array::from_fn(|i| lane(i) + lane(i + 4));
        f64::from((four[0] + four[2]) + (four[1] + four[3]))
    };
    let sum: f64 = out.chunks(8).map(eight).sum();
    let inverse = (1.0 / sum) as f32;
    out.iter_mut().for_each(|out| *out *= inverse);
}

/// `out[d] = sum of p[j] * v[j * stride + d]`: key `j` adds to lane `j` modulo 32.
#[inline(always)]
pub(super) fn weighted_sum<const FUSED: bool>(p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
    const WIDTH: usize = 16;
    for (start, part) in (0..).step_by(WIDTH).zip(out.chunks_mut(WIDTH)) {
        let mut lanes = [[0f32; WIDTH]; 32];
        for (key, (weight, row)) in p.iter().zip(v.chunks(stride.max(1))).enumerate() {
            let values = &row[start..start + part.len()];
            for (lane, value) in lanes[key % 32].iter_mut().zip(values) {
                *lane = multiply_add::<FUSED>(*weight, *value, *lane);
            }
        }
        for (d, out) in part.iter_mut().enumerate() {
            *out = sum_lanes(std::array::from_fn(|lane| lanes[lane][d]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_its_bound() {
        for step in 0..200_000 {
            let x = -(step as f32) * 1e-3;
            let (exact, found) = (f64::from(x).exp(), f64::from(exponential::<true>(x)));
            let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            // 1.5 ulp of the polynomial, and half of rounding.
            assert!((found - exact).abs() <= 2.0 * ulp, "e^{x}: {found} is not {exact}");
        }
        assert!(exponential::<false>(f32::NAN).is_nan());
        assert_eq!((exponential::<true>(0.0), exponential::<true>(f32::NEG_INFINITY)), (1.0, 0.0));
    }

    #[test]
    fn softmax_survives_large_scores_and_spreads_nan() {
        let mut out = [0.0; 3];
        softmax::<true>(&[1e30, 1e30, f32::NEG_INFINITY], &mut out);
        assert_eq!(out, [0.5, 0.5, 0.0]);
        softmax::<false>(&[0.0, f32::NAN, 1.0], &mut out);
        assert!(out.iter().all(|p| p.is_nan()));
    }

    #[test]
    fn dots_and_weighted_sums_agree_with_f64() {
        let x: Vec<f32> = (0..77).map(|i| (i as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = (0..77).map(|i| (i as f32 * 0.3).cos()).collect();
        let exact: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        // Sums of 77 products below 1 in f32.
        assert!((f64::from(dot::<true>(&x, &y)) - exact).abs() < 1e-5);
        assert!((f64::from(dot::<false>(&x, &y)) - exact).abs() < 1e-5);
        let mut out = [0.0; 3];
        weighted_sum::<true>(&x, &y.iter().flat_map(|y| [*y, 2.0 * y, 1.0, 9.0]).collect::<Vec<_>>(), 4, &mut out);
        let total: f64 = x.iter().map(|x| f64::from(*x)).sum();
        assert!((f64::from(out[0]) - exact).abs() < 1e-5 && (f64::from(out[1]) - 2.0 * exact).abs() < 2e-5);
        assert!((f64::from(out[2]) - total).abs() < 1e-5);
    }
}
