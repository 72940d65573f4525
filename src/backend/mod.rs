//! Where operations run. One trait; no type of any device leaks through it.

mod cpu;

pub use cpu::{CpuBackend, CpuWeight};

use crate::error::Result;
use crate::graph::Site;
use crate::model::Weight;
use crate::tensor::Rows;
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
    /// Which kernels run: `cpu/avx2-fma`, `cpu/scalar`.
    pub kernel_path: String,
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

/// A device that executes the graph's operations.
///
/// A wrapper that delegates is a backend too: tests plant faults that way.
///
/// Results of a row do not depend on which other rows are in its batch, nor on the number of threads.
pub trait Backend {
    /// Rows on the device: one per token of the batch.
    type Tensor;
    /// A weight made ready for this backend and its semantics.
    type Weight;

    /// What runs here.
    fn identity(&self) -> BackendIdentity;

    /// Makes a weight ready.
    fn load(&mut self, weight: &Weight) -> Result<Self::Weight>;

    /// Forgets every cached key and value and makes room for `positions` of them in every site that stores.
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()>;

    /// Runs the operation of `site` for the rows of `batch`: every input has one row per token.
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

    /// Brings rows to the host.
    fn fetch(&self, tensor: &Self::Tensor, rows: Range<usize>) -> Result<Rows>;
}
