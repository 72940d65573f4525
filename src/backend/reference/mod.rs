//! The yardstick: every operation in plain f64 loops that share no kernel with another backend, so that a bug of one
//! is no bug of both. Results are rounded to f32 once, at the end of an operation.

mod arithmetic;
mod attention;
mod elements;
mod experts;
pub mod formula;
mod product;
mod rounding;
mod weight;

pub use arithmetic::{ActivationFormula, Arithmetic, CacheType, ProductRounding};
pub(crate) use product::{Matrix, exact_product};
pub use weight::ReferenceWeight;

use super::{Backend, BackendIdentity, Batch, Captured, Choice};
use crate::error::{Error, Result};
use crate::graph::{Operation, Site, SiteId};
use crate::model::Weight;
use crate::tensor::Rows;
use std::collections::HashMap;
use std::ops::Range;

type Call<'a> = super::call::Call<'a, ReferenceWeight>;

/// Bytes of the largest tensor of a chunk.
const CHUNK_BYTES: usize = 16 << 20;

/// Runs the graph in f64, rounding as its [`Arithmetic`] says; tensors are [`Rows`] in host memory.
#[derive(Debug)]
pub struct ReferenceBackend {
    arithmetic: Arithmetic,
    cache: HashMap<SiteId, Vec<f32>>,
}

impl ReferenceBackend {
    /// A backend that rounds as `arithmetic` says.
    pub fn new(arithmetic: Arithmetic) -> Self {
        ReferenceBackend { arithmetic, cache: HashMap::new() }
    }

    /// Puts rows into the cache of `site` as they are, from position `first_position` on.
    ///
    /// # Errors
    /// Internal, where they do not follow what the cache holds.
    pub fn fill_cache(&mut self, site: &Site, first_position: usize, rows: &Rows) -> Result<()> {
        let width = rows.width().filter(|width| *width > 0);
        let width = width.ok_or_else(|| Error::internal(format!("rows of `{}` have no width", site.point)))?;
        let cache = self.cache.entry(site.id).or_default();
        if first_position.checked_mul(width).is_none_or(|end| end > cache.len()) {
            return Err(Error::internal(format!("rows of `{}` do not follow its cache", site.point)));
        }
        cache.truncate(first_position * width);
        cache.extend_from_slice(rows.values());
        Ok(())
    }

    fn store(&mut self, call: &Call<'_>) -> Result<Rows> {
        let rounded: Vec<f32> = call.x(0)?.iter().map(|x| self.arithmetic.cache.round(*x)).collect();
        let rows = call.made(rounded)?;
        self.fill_cache(call.site, call.batch.first_position, &rows)?;
        Ok(rows)
    }
}

impl Backend for ReferenceBackend {
    type Tensor = Rows;
    type Weight = ReferenceWeight;

    fn identity(&self) -> BackendIdentity {
        BackendIdentity {
            device_kind: "cpu".to_owned(),
            device_name: std::env::consts::ARCH.to_owned(),
            driver: String::new(),
            cuda: String::new(),
            kernel_path: "reference/f64".to_owned(),
            fused: Vec::new(),
            instruction_set: String::new(),
            threads: rayon::current_num_threads(),
            compute_type: "f64".to_owned(),
            kv_type: self.arithmetic.cache.name().to_owned(),
            attention: "plain".to_owned(),
        }
    }

    fn rows_stand_alone(&self) -> bool {
        true
    }

    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn load(&mut self, weight: &Weight) -> Result<ReferenceWeight> {
        ReferenceWeight::new(weight)
    }

    fn reset_cache(&mut self, _: &[Site], _: usize) -> Result<()> {
        self.cache.clear();
        Ok(())
    }

    fn begin(&mut self, _: Batch<'_>) -> Result<()> {
        Ok(())
    }

    fn execute(
        &mut self,
        site: &Site,
        inputs: &[&Rows],
        weights: &[&ReferenceWeight],
        batch: Batch<'_>,
    ) -> Result<Rows> {
        let call = Call::new(site, inputs, weights, batch)?;
        match site.operation {
            Operation::Identity => call.input(0).cloned(),
            Operation::CacheStore => self.store(&call),
            Operation::TokenEmbedding => elements::embedding(&call, batch.tokens.iter().map(|id| *id as usize)),
            Operation::PositionEmbedding => {
                elements::embedding(&call, batch.first_position..batch.first_position + call.rows())
            }
            Operation::Add
            | Operation::Sum
            | Operation::Scale { .. }
            | Operation::SoftCap { .. }
            | Operation::Multiply
            | Operation::Activate(_)
            | Operation::Bias => elements::by_element(&call, self.arithmetic.activation),
            Operation::RmsNorm { .. }
            | Operation::LayerNorm { .. }
            | Operation::Rope { .. }
            | Operation::RowSoftmax => elements::by_row(&call),
            Operation::MatMul | Operation::Linear | Operation::GatedMatMul => {
                product::project(&call, self.arithmetic.products)
            }
            Operation::AttnScores { .. } | Operation::Softmax { .. } | Operation::AttnContext { .. } => {
                attention::attend(&call, &self.cache)
            }
            Operation::ExpertMatMul { slot } => experts::product(&call, slot, self.arithmetic.products),
            Operation::TopK { .. } | Operation::ExpertWeights { .. } | Operation::ExpertSum => experts::route(&call),
        }
    }

    fn slice(&self, tensor: &Rows, rows: Range<usize>) -> Result<Rows> {
        tensor
            .slice(rows.clone())
            .ok_or_else(|| Error::internal(format!("rows {rows:?} of a tensor of {} rows", tensor.len())))
    }

    fn capture(&mut self, tensor: &Rows, rows: Range<usize>, _: bool) -> Result<Captured> {
        self.slice(tensor, rows).map(Captured::Host)
    }

    fn choose(&mut self, logits: &Rows) -> Result<Choice> {
        let last = logits.len().checked_sub(1).ok_or_else(|| Error::internal("no logits to choose by"))?;
        Ok(Choice::of(logits.row(last)))
    }
}
