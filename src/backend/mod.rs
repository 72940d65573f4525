//! Where operations run. One trait; no type of any device leaks through it.

mod call;
mod captured;
mod cpu;
#[cfg(feature = "record")]
pub mod cuda;
mod reference;

pub use captured::{Captured, Landed, Landing};
pub use cpu::{CpuBackend, CpuWeight};
pub use reference::{
    ActivationFormula, Arithmetic, CacheType, ProductRounding, ReferenceBackend, ReferenceWeight, formula,
};
pub(crate) use reference::{Matrix, exact_product};

use crate::error::Result;
use crate::graph::Site;
use crate::model::Weight;
use crate::stats::row_fingerprint;
use std::ops::Range;

/// How products with weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Semantics {
    /// The activation is rounded to the type that ggml pairs with the weight's.
    Ggml,
    /// Weights are converted to f32, activations stay untouched.
    DequantizeF32,
}

impl Semantics {
    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Semantics::Ggml => "ggml",
            Semantics::DequantizeF32 => "dequantize-f32",
        }
    }
}

/// The tokens of one batch: consecutive positions of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Token ids, one per row.
    pub tokens: &'a [u32],
    /// The position of the first.
    pub first_position: usize,
}

/// What a backend says of itself, for a run's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendIdentity {
    /// `cpu`, `cuda`.
    pub device_kind: String,
    /// The processor's or card's name.
    pub device_name: String,
    /// Driver version, empty on a CPU.
    pub driver: String,
    /// CUDA version, empty on a CPU.
    pub cuda: String,
    /// Which kernels run: `cpu/avx2-fma`, `cpu/scalar`, `cuda/sm_90`.
    pub kernel_path: String,
    /// Operations that one kernel makes together; each of them still writes every point inside.
    pub fused: Vec<String>,
    /// Instruction set that the kernels use.
    pub instruction_set: String,
    /// Threads.
    pub threads: usize,
    /// Type of the arithmetic: `f32`.
    pub compute_type: String,
    /// Type of the KV cache: `f32`.
    pub kv_type: String,
    /// How attention is computed: `plain`.
    pub attention: String,
}

/// The greedy choice after a row of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The largest logit: of equals the lowest id, never a NaN; 0 where all are NaN, so that a broken model can still
    /// be recorded.
    pub token: u32,
    /// Fingerprint of the row.
    pub fingerprint: u64,
}

impl Choice {
    /// The choice after `logits`.
    pub fn of(logits: &[f32]) -> Self {
        let mut best = (0u32, f32::NAN);
        for (id, value) in (0u32..).zip(logits) {
            if *value > best.1 || (best.1.is_nan() && !value.is_nan()) {
                best = (id, *value);
            }
        }
        Choice { token: best.0, fingerprint: row_fingerprint(logits) }
    }
}

/// A device that executes the graph's operations.
///
/// A wrapper that delegates is a backend too: tests plant faults that way.
pub trait Backend {
    /// Rows on the device: one per token of the batch.
    type Tensor: Clone;
    /// A weight made ready for this backend and its semantics.
    type Weight;

    /// What runs here.
    fn identity(&self) -> BackendIdentity;

    /// Whether a row's bits are the same whichever other rows are computed with it. Where they are not, every site
    /// computes all rows of its batch, whoever observes: otherwise observing would change results.
    fn rows_stand_alone(&self) -> bool;

    /// Bytes that a tensor of a prefill chunk should not exceed, scores of long prompts and logits above all.
    fn chunk_bytes(&self) -> usize;

    /// Whether the operation of `site` can run here, asked for every site before a weight is loaded.
    ///
    /// # Errors
    /// Unsupported, with the name of the operation.
    fn check(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    /// Makes a weight ready.
    fn load(&mut self, weight: &Weight) -> Result<Self::Weight>;

    /// Forgets every cached key and value and makes room for `positions` of them in every site that stores.
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()>;

    /// A batch begins: every operation up to the next call is for rows of it.
    fn begin(&mut self, batch: Batch<'_>) -> Result<()>;

    /// Runs the operation of `site` for the rows of `batch`, a part of the batch that began: every input has one row
    /// per token.
    ///
    /// Positions come in ascending order; attention reads what the sites in `site.inputs` stored so far.
    fn execute(
        &mut self,
        site: &Site,
        inputs: &[&Self::Tensor],
        weights: &[&Self::Weight],
        batch: Batch<'_>,
    ) -> Result<Self::Tensor>;

    /// The rows `rows` of a tensor alone, as a tensor (the last token's hidden state before the output head).
    fn slice(&self, tensor: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;

    /// Starts to bring statistics of the rows `rows` to the host, and their values too where `values` says so. The
    /// device goes on meanwhile.
    fn capture(&mut self, tensor: &Self::Tensor, rows: Range<usize>, values: bool) -> Result<Captured>;

    /// The choice after the last row of `logits`. Everything that was captured before is under way when it returns.
    fn choose(&mut self, logits: &Self::Tensor) -> Result<Choice>;
}

#[cfg(test)]
mod tests {
    use super::Choice;

    #[test]
    fn ties_go_to_the_lowest_id_and_nan_never_wins() {
        assert_eq!(Choice::of(&[1.0, 3.0, 3.0]).token, 1);
        assert_eq!(Choice::of(&[f32::NAN, -2.0, -1.0, f32::NAN]).token, 2);
        assert_eq!(Choice::of(&[f32::NAN, f32::NEG_INFINITY]).token, 1);
        assert_eq!(Choice::of(&[f32::NAN, f32::NAN]).token, 0);
    }
}
