//! Dots and sums, once for AVX2 and once in plain Rust; which of the two runs is found at start.
//!
//! A dot's order of accumulation depends on nothing but the kernel path: not on the rows beside it, not on
//! the thread.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod bytes;
mod integer;
mod quants;
mod scalar;

pub(super) use quants::Quantised;

use crate::model::TensorType;

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernels {
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust.
    Scalar,
}

/// Rows of activations that share one load of a weight.
const ROWS: usize = 3;
/// Quantised activations need fewer registers.
const QUANTISED_ROWS: usize = 4;

impl Kernels {
    /// The fastest that this processor runs.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if avx2::detected() {
            return Kernels::Avx2;
        }
        Kernels::Scalar
    }

    /// The name in a run's identity.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => "cpu/avx2-fma",
            Kernels::Scalar => "cpu/scalar",
        }
    }

    /// The instruction set that these kernels need.
    pub(super) fn instruction_set(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => "avx2+fma+f16c",
            Kernels::Scalar => std::env::consts::ARCH,
        }
    }

    /// `out[j * x.len() + i] = x[i] . w[j]` over `k` elements; `w` are rows of F32, F16 or BF16.
    pub(super) fn float_products(self, x: &[&[f32]], w: &[&[u8]], tensor_type: TensorType, k: usize, out: &mut [f32]) {
        let m = x.len();
        let (tiles, rest) = x.as_chunks::<ROWS>();
        for (t, tile) in tiles.iter().enumerate() {
            let (quads, singles) = w.as_chunks::<4>();
            for (q, quad) in quads.iter().enumerate() {
                let dots = self.float_tile(*tile, *quad, tensor_type, k);
                for (i, row) in dots.iter().enumerate() {
                    for (j, dot) in row.iter().enumerate() {
                        out[(q * 4 + j) * m + t * ROWS + i] = *dot;
                    }
                }
            }
            for (j, single) in (quads.len() * 4..).zip(singles) {
                let dots = self.float_tile(*tile, [*single], tensor_type, k);
                for (i, row) in dots.iter().enumerate() {
                    out[j * m + t * ROWS + i] = row[0];
                }
            }
        }
        for (i, x) in (tiles.len() * ROWS..).zip(rest) {
            let (octets, singles) = w.as_chunks::<8>();
            for (o, octet) in octets.iter().enumerate() {
                let [dots] = self.float_tile([*x], *octet, tensor_type, k);
                for (j, dot) in dots.iter().enumerate() {
                    out[(o * 8 + j) * m + i] = *dot;
                }
            }
            for (j, single) in (octets.len() * 8..).zip(singles) {
                let [[dot]] = self.float_tile([*x], [*single], tensor_type, k);
                out[j * m + i] = dot;
            }
        }
    }

    /// [`Kernels::float_products`] with rows in memory.
    pub(super) fn products(self, x: &[&[f32]], w: &[&[f32]], k: usize, out: &mut [f32]) {
        let w: Vec<&[u8]> = w.iter().map(|row| bytes::of(row)).collect();
        self.float_products(x, &w, TensorType::F32, k, out);
    }

    /// `out[j * rows + i]` = quantised row `i` of `x` . `w[j]`, for all `rows` rows of `x`.
    pub(super) fn quantised_products(
        self,
        x: &Quantised,
        rows: usize,
        w: &[&[u8]],
        tensor_type: TensorType,
        out: &mut [f32],
    ) {
        let whole = rows - rows % QUANTISED_ROWS;
        for first in (0..whole).step_by(QUANTISED_ROWS) {
            for (j, w) in w.iter().enumerate() {
                let dots: [f32; QUANTISED_ROWS] = self.quantised_tile(w, tensor_type, x, first);
                out[j * rows + first..][..QUANTISED_ROWS].copy_from_slice(&dots);
            }
        }
        for i in whole..rows {
            for (j, w) in w.iter().enumerate() {
                let [dot] = self.quantised_tile(w, tensor_type, x, i);
                out[j * rows + i] = dot;
            }
        }
    }

    fn float_tile<const M: usize, const N: usize>(
        self,
        x: [&[f32]; M],
        w: [&[u8]; N],
        tensor_type: TensorType,
        k: usize,
    ) -> [[f32; N]; M] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::float_tile(x, w, tensor_type, k),
            Kernels::Scalar => scalar::float_tile(x, w, tensor_type, k),
        }
    }

    fn quantised_tile<const M: usize>(
        self,
        w: &[u8],
        tensor_type: TensorType,
        x: &Quantised,
        first: usize,
    ) -> [f32; M] {
        match (self, tensor_type) {
            #[cfg(target_arch = "x86_64")]
            (Kernels::Avx2, TensorType::Q8_0 | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K) => {
                avx2::quantised_tile(w, tensor_type, x, first)
            }
            (Kernels::Scalar, TensorType::Q8_0 | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K) => {
                scalar::quantised_tile(w, tensor_type, x, first)
            }
            #[cfg(target_arch = "x86_64")]
            (Kernels::Avx2, _) => avx2::integer_tile(w, tensor_type, x, first),
            (Kernels::Scalar, _) => integer::tile(w, tensor_type, x, first),
        }
    }

    /// `out[j] = q . k_j * scale`, where key `k_j` begins at `keys[j * stride]`.
    pub(super) fn scores(self, q: &[f32], keys: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::scores(q, keys, stride, scale, out),
            Kernels::Scalar => attention::scores::<false>(q, keys, stride, scale, out),
        }
    }

    /// Softmax of one head's scores.
    pub(super) fn softmax(self, x: &[f32], out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::softmax(x, out),
            Kernels::Scalar => attention::softmax::<false>(x, out),
        }
    }

    /// `out[d] = sum of p[j] * v[j * stride + d]`.
    pub(super) fn weighted_sum(self, p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::weighted_sum(p, v, stride, out),
            Kernels::Scalar => attention::weighted_sum::<false>(p, v, stride, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: [TensorType; 3] = [TensorType::F32, TensorType::F16, TensorType::Bf16];

    fn quants() -> impl Iterator<Item = TensorType> {
        TensorType::ALL.into_iter().filter(|tensor_type| tensor_type.block_elements() > 1)
    }

    /// Noise without a generator's state: the upper bits of a multiplicative hash.
    fn noise(index: usize) -> u32 {
        (index as u32).wrapping_add(1).wrapping_mul(0x9E37_79B9) ^ (index as u32).wrapping_mul(0x85EB_CA77) >> 7
    }

    fn activations(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|i| (noise(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Where a block has its f16 scales and minima.
    fn halves(tensor_type: TensorType) -> &'static [usize] {
        match tensor_type {
            TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 | TensorType::Iq4Nl | TensorType::Iq4Xs => &[0],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Q2K => &[80, 82],
            TensorType::Q3K => &[108],
            TensorType::Q6K => &[208],
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 | TensorType::Mxfp4 => &[],
        }
    }

    /// Stored rows with random quants; every f16 scale is 0.01 (of MXFP4 2^-7), every float below 2 in magnitude.
    fn stored(tensor_type: TensorType, rows: usize, columns: usize) -> Vec<Vec<u8>> {
        let scale = half::f16::from_f32(0.01).to_le_bytes();
        let places = halves(tensor_type);
        let bytes = tensor_type.row_bytes(columns).unwrap();
        let mut made: Vec<Vec<u8>> =
            (0..rows).map(|row| (0..bytes).map(|i| (noise(row * bytes + i) >> 24) as u8).collect()).collect();
        for row in &mut made {
            for block in row.chunks_exact_mut(tensor_type.block_bytes()) {
                places.iter().for_each(|at| block[*at..at + 2].copy_from_slice(&scale));
                match (tensor_type, block) {
                    (TensorType::Mxfp4, [exponent, ..]) => *exponent = 127 - 7,
                    (_, [.., top]) if places.is_empty() => *top &= 0xBF,
                    _ => {}
                }
            }
        }
        made
    }

    fn products(kernels: Kernels, tensor_type: TensorType, x: &[f32], w: &[Vec<u8>], columns: usize) -> Vec<f32> {
        let w: Vec<&[u8]> = w.iter().map(Vec::as_slice).collect();
        let rows = x.len() / columns;
        let mut out = vec![0f32; rows * w.len()];
        if let Some(quantised) = Quantised::new(x, columns, tensor_type) {
            kernels.quantised_products(&quantised, rows, &w, tensor_type, &mut out);
        } else {
            let x: Vec<&[f32]> = x.chunks_exact(columns).collect();
            kernels.float_products(&x, &w, tensor_type, columns, &mut out);
        }
        out
    }

    /// Both paths add the same products (integers exactly, floats with one rounding more): 2048 f32 sums of mixed
    /// signs are off by at most 2048 * 2^-24 of the sum of magnitudes, which is under a hundred times the result's
    /// norm over all outputs.
    #[test]
    fn the_detected_kernels_agree_with_plain_rust() {
        for tensor_type in FLOATS.into_iter().chain(quants()) {
            let columns = if tensor_type.block_elements() == 1 { 133 } else { 2048 };
            let (x, w) = (activations(5, columns), stored(tensor_type, 11, columns));
            let fast = products(Kernels::detect(), tensor_type, &x, &w, columns);
            let plain = products(Kernels::Scalar, tensor_type, &x, &w, columns);
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let error = norm(&mut fast.iter().zip(&plain).map(|(a, b)| a - b)) / norm(&mut plain.iter().copied());
            assert!(error < 1e-5, "{tensor_type:?}: {error:e}");
            assert!(plain.iter().all(|value| value.is_finite()), "{tensor_type:?}");
        }
    }

    /// What Q4_1 and Q5_1 add to every element of a block, times the rounded sum that stands for the activations there;
    /// 0 for other types. Their dot takes the sum of Q8_1, which is rounded to f16, not that of the quants.
    fn minima(tensor_type: TensorType, w: &[u8], x: &Quantised, row: usize) -> f64 {
        if x.totals.is_empty() {
            return 0.0;
        }
        let totals = x.totals.iter().skip(row * x.columns / x.block);
        let minimum = |block: &[u8]| f64::from(half::f16::from_le_bytes([block[2], block[3]]).to_f32());
        w.chunks_exact(tensor_type.block_bytes()).zip(totals).map(|(w, total)| minimum(w) * f64::from(*total)).sum()
    }

    /// The plain kernels against the product of dequantised values in f64.
    #[test]
    fn quantised_products_are_those_of_the_dequantised_values() {
        for tensor_type in quants() {
            let (x, w) = (activations(2, 512), stored(tensor_type, 3, 512));
            let quantised = Quantised::new(&x, 512, tensor_type).unwrap();
            let out = products(Kernels::Scalar, tensor_type, &x, &w, 512);
            for (j, w) in w.iter().enumerate() {
                let mut weights = vec![0f32; 512];
                crate::model::quant::dequantize(tensor_type, w, &mut weights).unwrap();
                if !quantised.totals.is_empty() {
                    // The minimum, 0.01 in all blocks, has a product of its own.
                    let minimum = half::f16::from_f32(0.01).to_f32();
                    weights.iter_mut().for_each(|w| *w -= minimum);
                }
                for i in 0..2 {
                    let terms = weights.iter().enumerate().map(|(c, w)| {
                        let scale = quantised.scales[(i * 512 + c) / quantised.block];
                        f64::from(scale) * f64::from(quantised.quants[i * 512 + c]) * f64::from(*w)
                    });
                    let extra = minima(tensor_type, w, &quantised, i);
                    let start = (extra, extra.abs());
                    let (sum, size) = terms.fold(start, |(sum, size), term| (sum + term, size + term.abs()));
                    // Rounding of 512 f32 terms, relative to the sum of their magnitudes.
                    let error = (f64::from(out[j * 2 + i]) - sum).abs() / size;
                    assert!(error < 512.0 / f64::from(1 << 24), "{tensor_type:?}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn a_dot_has_the_same_bits_in_every_tile() {
        for tensor_type in FLOATS.into_iter().chain(quants()) {
            let columns = if tensor_type.block_elements() == 1 { 77 } else { 512 };
            let (x, w) = (activations(9, columns), stored(tensor_type, 13, columns));
            let all = products(Kernels::detect(), tensor_type, &x, &w, columns);
            for (i, x) in x.chunks_exact(columns).enumerate() {
                for (j, w) in w.iter().enumerate() {
                    let alone = products(Kernels::detect(), tensor_type, x, std::slice::from_ref(w), columns);
                    assert_eq!(alone[0].to_bits(), all[j * 9 + i].to_bits(), "{tensor_type:?} row {i} output {j}");
                }
            }
        }
    }

    #[test]
    fn weighted_sums_agree_and_handle_odd_widths() {
        let (p, v) = (activations(1, 10), activations(10, 50));
        for width in [1, 32, 45] {
            let (mut fast, mut plain) = (vec![0f32; width], vec![9f32; width]);
            Kernels::detect().weighted_sum(&p, &v[3..], 50, &mut fast);
            Kernels::Scalar.weighted_sum(&p, &v[3..], 50, &mut plain);
            // Ten terms of magnitude one at most, one rounding each.
            assert!(fast.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 10.0 * f32::EPSILON));
        }
    }
}
