//! The processor's backend: own kernels, own threads, f32 throughout.

mod attention;
mod experts;
mod kernels;
mod product;
mod rowwise;
mod weight;

pub use weight::CpuWeight;

use super::{Backend, BackendIdentity, Batch, Captured, Choice, Semantics};
use crate::error::{Error, Result};
use crate::graph::{Operation, Site, SiteId};
use crate::model::{TensorType, Weight};
use crate::tensor::Rows;
use attention::Heads;
use kernels::Kernels;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

type Call<'a> = super::call::Call<'a, CpuWeight>;

/// Elements below which a second thread costs more than it brings.
const SMALL: usize = 1 << 15;
/// Bytes of the largest tensor of a chunk: what the caches of a few cores hold.
const CHUNK_BYTES: usize = 64 << 20;

/// Runs the graph on the processor, with [`Rows`] in host memory as tensors. A row's bits do not depend on the rows
/// beside it, nor on the number of threads.
#[derive(Debug)]
pub struct CpuBackend {
    kernels: Kernels,
    pool: rayon::ThreadPool,
    semantics: Semantics,
    cache: HashMap<SiteId, Vec<f32>>,
    positions: usize,
}

impl CpuBackend {
    /// A backend with `threads` threads (0: one for each processor) that rounds products as `semantics` say.
    ///
    /// # Errors
    /// Environment where the threads cannot be started.
    pub fn new(semantics: Semantics, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("actrace-cpu-{index}"))
            .build()
            .map_err(|cause| {
                let message = format!("cannot start {threads} threads");
                Error::new(crate::error::ErrorKind::Environment, message).because(cause)
            })?;
        Ok(CpuBackend { kernels: Kernels::detect(), pool, semantics, cache: HashMap::new(), positions: 0 })
    }

    /// Writes each row of the output from its number; rows are spread over the threads where there is much to do.
    fn rows(&self, rows: usize, width: usize, make: impl Fn(usize, &mut [f32]) + Sync + Send) -> Vec<f32> {
        let mut out = vec![0f32; rows * width];
        let run = |(row, out): (usize, &mut [f32])| make(row, out);
        if out.len() <= SMALL || rows == 1 {
            out.chunks_mut(width).enumerate().for_each(run);
        } else {
            self.pool.install(|| out.par_chunks_mut(width).enumerate().for_each(run));
        }
        out
    }

    /// Like [`CpuBackend::rows`], for functions of elements: any piece of a row is a task.
    fn elements(&self, x: &[f32], make: impl Fn(Range<usize>, &mut [f32]) + Sync + Send) -> Vec<f32> {
        const PIECE: usize = 4096;
        let mut out = vec![0f32; x.len()];
        let run = |(piece, out): (usize, &mut [f32])| make(piece * PIECE..piece * PIECE + out.len(), out);
        if out.len() <= SMALL / 2 {
            out.chunks_mut(PIECE).enumerate().for_each(run);
        } else {
            self.pool.install(|| out.par_chunks_mut(PIECE).enumerate().for_each(run));
        }
        out
    }

    fn embedding(&self, call: &Call<'_>, indices: impl ExactSizeIterator<Item = usize>) -> Result<Rows> {
        let (matrix, width) = (call.weight(0)?.matrix()?, call.width()?);
        let mut out = vec![0f32; indices.len() * width];
        for (index, row) in indices.zip(out.chunks_exact_mut(width)) {
            matrix.values(index, row)?;
        }
        call.made(out)
    }

    /// Appends rows to the cache of `site`; rows of positions that are there already are replaced.
    fn store(&mut self, call: &Call<'_>) -> Result<Rows> {
        let Call { site, batch, .. } = *call;
        let (x, width) = (call.input(0)?, call.width()?);
        let Some(cache) = self.cache.get_mut(&site.id) else {
            return Err(Error::internal(format!("no cache was made for `{}`", site.point)));
        };
        let end = batch.first_position + batch.tokens.len();
        if end > self.positions || batch.first_position * width > cache.len() {
            return Err(Error::internal(format!(
                "positions {}..{end} do not follow a cache of {} in {}",
                batch.first_position,
                cache.len() / width,
                self.positions
            )));
        }
        cache.truncate(batch.first_position * width);
        cache.extend_from_slice(x.values());
        Ok(x.clone())
    }

    /// The cached rows that the last token of `batch` sees.
    fn cached(&self, call: &Call<'_>, heads: Heads) -> Result<&[f32]> {
        let Call { site, batch, .. } = *call;
        let stored = site.inputs.get(1).and_then(|id| self.cache.get(id));
        let needed = (batch.first_position + batch.tokens.len()) * heads.kv_heads * heads.head_dim;
        stored
            .and_then(|cache| cache.get(..needed))
            .ok_or_else(|| Error::internal(format!("`{}` reads positions that are not in the cache", site.point)))
    }
}

impl Backend for CpuBackend {
    type Tensor = Rows;
    type Weight = CpuWeight;

    fn identity(&self) -> BackendIdentity {
        BackendIdentity {
            device_kind: "cpu".to_owned(),
            device_name: processor_name(),
            driver: String::new(),
            cuda: String::new(),
            kernel_path: self.kernels.name().to_owned(),
            fused: Vec::new(),
            instruction_set: self.kernels.instruction_set().to_owned(),
            threads: self.pool.current_num_threads(),
            compute_type: "f32".to_owned(),
            kv_type: "f32".to_owned(),
            attention: "plain".to_owned(),
        }
    }

    fn rows_stand_alone(&self) -> bool {
        true
    }

    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn load(&mut self, weight: &Weight) -> Result<CpuWeight> {
        if self.semantics == Semantics::Ggml && weight.tensor_type == TensorType::F8E4M3 {
            let message = "ggml has no products with f8_e4m3: use --semantics dequantize-f32";
            return Err(Error::unsupported(message).of(&weight.stored_name));
        }
        CpuWeight::new(weight, &self.pool)
    }

    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.positions = positions;
        self.cache.clear();
        let stores = sites.iter().filter(|site| site.operation == Operation::CacheStore);
        self.cache.extend(stores.map(|site| (site.id, Vec::new())));
        Ok(())
    }

    fn begin(&mut self, _: Batch<'_>) -> Result<()> {
        Ok(())
    }

    fn execute(&mut self, site: &Site, inputs: &[&Rows], weights: &[&CpuWeight], batch: Batch<'_>) -> Result<Rows> {
        let call = Call::new(site, inputs, weights, batch)?;
        match site.operation {
            Operation::TokenEmbedding => self.embedding(&call, batch.tokens.iter().map(|id| *id as usize)),
            Operation::PositionEmbedding => {
                self.embedding(&call, batch.first_position..batch.first_position + call.rows())
            }
            Operation::Identity => call.input(0).cloned(),
            Operation::CacheStore => self.store(&call),
            Operation::Add
            | Operation::Sum
            | Operation::Scale { .. }
            | Operation::SoftCap { .. }
            | Operation::Multiply
            | Operation::Activate(_)
            | Operation::Bias => self.by_element(&call),
            Operation::RmsNorm { .. }
            | Operation::LayerNorm { .. }
            | Operation::Rope { .. }
            | Operation::RowSoftmax => self.by_row(&call),
            Operation::MatMul | Operation::Linear | Operation::GatedMatMul => self.project(&call),
            Operation::AttnScores { .. } | Operation::Softmax { .. } | Operation::AttnContext { .. } => {
                self.attend(&call)
            }
            Operation::TopK { .. }
            | Operation::ExpertWeights { .. }
            | Operation::ExpertMatMul { .. }
            | Operation::ExpertSum => self.route(&call),
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

/// The processor's name as the system tells it, else the architecture.
fn processor_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
