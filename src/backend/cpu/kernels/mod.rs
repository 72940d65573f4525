//! Dots and sums, once for AVX2 and once in plain Rust; which of the two runs is found at start.
//!
//! A dot's order of accumulation depends on nothing but the kernel path: not on the rows beside it, not on
//! the thread.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bytes;
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

    /// `out[j] = x . w[j]` over rows in memory.
    pub(super) fn dots(self, x: &[f32], w: &[&[f32]], out: &mut [f32]) {
        let w: Vec<&[u8]> = w.iter().map(|row| bytes::of(row)).collect();
        self.float_products(&[x], &w, TensorType::F32, x.len(), out);
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
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::quantised_tile(w, tensor_type, x, first),
            Kernels::Scalar => scalar::quantised_tile(w, tensor_type, x, first),
        }
    }

    /// `out[d] = sum of p[j] * v[j * stride + d]` over ascending `j`.
    pub(super) fn weighted_sum(self, p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => avx2::weighted_sum(p, v, stride, out),
            Kernels::Scalar => scalar::weighted_sum(p, v, stride, out),
        }
    }
}
