//! The processor's backend: own kernels, own threads, f32 throughout.

mod attention;
mod experts;
mod kernels;
mod product;
mod rowwise;
mod weight;

pub use weight::CpuWeight;

use super::{Backend, BackendIdentity, Batch, Semantics};
use crate::error::{Error, Result};
use crate::graph::{Operation, Site, SiteId};
use crate::model::Weight;
use crate::tensor::{Extent, Rows};
use attention::{Heads, Visible};
use kernels::Kernels;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements below which a second thread costs more than it brings.
const SMALL: usize = 1 << 15;

/// Runs the graph on the processor, with [`Rows`] in host memory as tensors.
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

    fn embedding(&self, weight: &CpuWeight, indices: &[usize], width: usize) -> Result<Vec<f32>> {
        let matrix = weight.matrix()?;
        let mut out = vec![0f32; indices.len() * width];
        for (index, row) in indices.iter().zip(out.chunks_exact_mut(width)) {
            matrix.values(*index, row)?;
        }
        Ok(out)
    }

    fn product(&self, x: &[f32], weight: &CpuWeight) -> Result<Vec<f32>> {
        product::product(self.kernels, &self.pool, self.semantics, x, weight)
    }

    fn biased(&self, site: &Site, x: &[f32], bias: &CpuWeight, rows: usize) -> Result<Vec<f32>> {
        let (bias, width) = (bias.vector(), width_of(site)?);
        Ok(self.rows(rows, width, |row, out| zip(out, &x[row * width..], bias, |x, b| x + b)))
    }

    /// Appends rows to the cache of `site`; rows of positions that are there already are replaced.
    fn store(&mut self, site: &Site, x: &Rows, batch: Batch<'_>) -> Result<()> {
        let width = width_of(site)?;
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
        Ok(())
    }

    /// The cached rows that the last token of `batch` sees.
    fn cached(&self, site: &Site, batch: Batch<'_>, heads: Heads) -> Result<&[f32]> {
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
            instruction_set: self.kernels.instruction_set().to_owned(),
            threads: self.pool.current_num_threads(),
            compute_type: "f32".to_owned(),
            kv_type: "f32".to_owned(),
            attention: "plain".to_owned(),
        }
    }

    fn load(&mut self, weight: &Weight) -> Result<CpuWeight> {
        CpuWeight::new(weight, &self.pool)
    }

    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.positions = positions;
        self.cache.clear();
        let stores = sites.iter().filter(|site| site.operation == Operation::CacheStore);
        self.cache.extend(stores.map(|site| (site.id, Vec::new())));
        Ok(())
    }

    fn execute(&mut self, site: &Site, inputs: &[&Rows], weights: &[&CpuWeight], batch: Batch<'_>) -> Result<Rows> {
        let rows = batch.tokens.len();
        if inputs.iter().any(|input| input.len() != rows) || rows == 0 {
            return Err(Error::internal(format!("`{}` needs {rows} rows of every input", site.point)));
        }
        let x = |index: usize| inputs.get(index).map(|rows| rows.values()).ok_or_else(|| missing(site, "input"));
        let weight = |index: usize| weights.get(index).copied().ok_or_else(|| missing(site, "weight"));
        let visible = |window: Option<u32>| Visible { first_position: batch.first_position, window };
        let values = match site.operation {
            Operation::TokenEmbedding => {
                let ids: Vec<usize> = batch.tokens.iter().map(|id| *id as usize).collect();
                self.embedding(weight(0)?, &ids, width_of(site)?)?
            }
            Operation::PositionEmbedding => {
                let positions: Vec<usize> = (batch.first_position..batch.first_position + rows).collect();
                self.embedding(weight(0)?, &positions, width_of(site)?)?
            }
            Operation::Identity => {
                return inputs.first().map(|x| (*x).clone()).ok_or_else(|| missing(site, "input"));
            }
            Operation::CacheStore => {
                let x = inputs.first().ok_or_else(|| missing(site, "input"))?;
                self.store(site, x, batch)?;
                return Ok((*x).clone());
            }
            Operation::Add => {
                let (a, b) = (x(0)?, x(1)?);
                self.elements(a, |at, out| zip(out, &a[at.clone()], &b[at], |a, b| a + b))
            }
            Operation::Sum => {
                let others: Vec<&[f32]> = inputs.iter().skip(1).map(|rows| rows.values()).collect();
                let first = x(0)?;
                self.elements(first, |at, out| {
                    out.copy_from_slice(&first[at.clone()]);
                    for other in &others {
                        out.iter_mut().zip(&other[at.clone()]).for_each(|(out, x)| *out += x);
                    }
                })
            }
            Operation::Scale { factor } => {
                let x = x(0)?;
                self.elements(x, |at, out| zip(out, &x[at.clone()], &x[at], |x, _| x * factor))
            }
            Operation::SoftCap { cap } => {
                let x = x(0)?;
                self.elements(x, |at, out| zip(out, &x[at.clone()], &x[at], |x, _| rowwise::soft_cap(x, cap)))
            }
            Operation::Multiply => {
                let (a, b) = (x(0)?, x(1)?);
                self.elements(a, |at, out| zip(out, &a[at.clone()], &b[at], |a, b| a * b))
            }
            Operation::Activate(activation) => {
                let x = x(0)?;
                self.elements(x, |at, out| rowwise::activate(activation, &x[at], out))
            }
            Operation::Bias => self.biased(site, x(0)?, weight(0)?, rows)?,
            Operation::Linear => {
                let product = self.product(x(0)?, weight(0)?)?;
                self.biased(site, &product, weight(1)?, rows)?
            }
            Operation::RmsNorm { epsilon, weight_offset, groups } => {
                let (x, groups) = (x(0)?, groups as usize);
                let (gain, width) = (weight(0)?.vector_plus(weight_offset), width_of(site)? / groups.max(1));
                self.rows(rows * groups, width, |row, out| {
                    rowwise::rms_norm(&x[row * width..][..width], &gain, epsilon, out);
                })
            }
            Operation::LayerNorm { epsilon } => {
                let (x, width) = (x(0)?, width_of(site)?);
                let (gain, bias) = (weight(0)?.vector(), weight(1)?.vector());
                self.rows(rows, width, |row, out| {
                    rowwise::layer_norm(&x[row * width..][..width], gain, bias, epsilon, out);
                })
            }
            Operation::MatMul => self.product(x(0)?, weight(0)?)?,
            Operation::Rope { head_dim, rope, .. } => {
                let (x, width) = (x(0)?, width_of(site)?);
                let frequencies = rope.frequencies(weights.first().map_or(&[], |factors| factors.vector()));
                self.rows(rows, width, |row, out| {
                    let position = batch.first_position + row;
                    rowwise::rope(&x[row * width..][..width], head_dim as usize, &frequencies, position, out);
                })
            }
            Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => {
                let (shape, visible) = (shape(heads, kv_heads, head_dim), visible(window));
                let offsets = visible.offsets(rows, shape.heads);
                let keys = self.cached(site, batch, shape)?;
                let factors = (scale, softcap);
                let scores =
                    attention::scores(self.kernels, &self.pool, shape, visible, factors, x(0)?, keys, &offsets);
                return assemble(site, scores, Extent::Offsets(offsets.into()), rows);
            }
            Operation::Softmax { heads, window } => {
                let offsets = visible(window).offsets(rows, heads as usize);
                let scores = x(0)?;
                if offsets.last() != Some(&scores.len()) {
                    return Err(missing(site, "score"));
                }
                let probabilities =
                    attention::probabilities(self.kernels, &self.pool, heads as usize, scores, &offsets);
                return assemble(site, probabilities, Extent::Offsets(offsets.into()), rows);
            }
            Operation::AttnContext { heads, kv_heads, head_dim, window } => {
                let (shape, visible) = (shape(heads, kv_heads, head_dim), visible(window));
                let offsets = visible.offsets(rows, shape.heads);
                let stored = self.cached(site, batch, shape)?;
                attention::context(self.kernels, &self.pool, shape, visible, x(0)?, stored, &offsets)
            }
            Operation::RowSoftmax => {
                let (x, width) = (x(0)?, width_of(site)?);
                self.rows(rows, width, |row, out| rowwise::softmax(&x[row * width..][..width], out))
            }
            Operation::TopK { count } => {
                let (x, of) = (x(0)?, width_of_input(inputs, 0, site)?);
                self.rows(rows, count as usize, |row, out| experts::top_k(&x[row * of..][..of], out))
            }
            Operation::ExpertWeights { normalised } => {
                let (all, chosen) = (inputs.first(), inputs.get(1));
                let (all, chosen) = all.zip(chosen).ok_or_else(|| missing(site, "input"))?;
                let width = width_of(site)?;
                let mut out = vec![0f32; rows * width];
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    experts::weights(all.row(row), chosen.row(row), normalised, out)?;
                }
                out
            }
            Operation::ExpertMatMul { slot } => {
                let width = width_of_input(inputs, 0, site)?;
                let used = width_of_input(inputs, 1, site)?;
                let chosen = x(1)?.iter().skip(slot as usize).step_by(used).copied();
                let engine = (self.kernels, &self.pool, self.semantics);
                experts::expert_product(engine, (x(0)?, width), chosen, weights, width_of(site)?)?
            }
            Operation::ExpertSum => {
                let (factors, slots) = inputs.split_first().ok_or_else(|| missing(site, "input"))?;
                self.rows(rows, width_of(site)?, |row, out| {
                    let slots: Vec<&[f32]> = slots.iter().map(|slot| slot.row(row)).collect();
                    experts::weighted(factors.row(row), &slots, out);
                })
            }
            Operation::GatedMatMul => {
                let mut product = self.product(x(0)?, weight(0)?)?;
                let (gated, gate) = (inputs.get(1).ok_or_else(|| missing(site, "input"))?, weight(1)?.vector());
                for (row, out) in product.chunks_exact_mut(width_of(site)?).enumerate() {
                    let factor = experts::gate(gated.row(row), gate);
                    out.iter_mut().for_each(|out| *out *= factor);
                }
                product
            }
        };
        assemble(site, values, Extent::Width(width_of(site)?), rows)
    }

    fn slice(&self, tensor: &Rows, rows: Range<usize>) -> Result<Rows> {
        tensor
            .slice(rows.clone())
            .ok_or_else(|| Error::internal(format!("rows {rows:?} of a tensor of {} rows", tensor.len())))
    }

    fn fetch(&self, tensor: &Rows, rows: Range<usize>) -> Result<Rows> {
        self.slice(tensor, rows)
    }
}

fn assemble(site: &Site, values: Vec<f32>, extent: Extent, rows: usize) -> Result<Rows> {
    Rows::new(Arc::new(values), extent, rows)
        .ok_or_else(|| Error::internal(format!("`{}` came out in another shape than its site says", site.point)))
}

fn missing(site: &Site, what: &str) -> Error {
    Error::internal(format!("`{}` lacks an {what} that its operation needs", site.point))
}

fn width_of(site: &Site) -> Result<usize> {
    let width = site.axes.width().filter(|width| *width > 0);
    width.map(|width| width as usize).ok_or_else(|| Error::internal(format!("`{}` has no width", site.point)))
}

fn width_of_input(inputs: &[&Rows], index: usize, site: &Site) -> Result<usize> {
    let width = inputs.get(index).and_then(|rows| rows.width()).filter(|width| *width > 0);
    width.ok_or_else(|| missing(site, "input"))
}

fn shape(heads: u32, kv_heads: u32, head_dim: u32) -> Heads {
    Heads { heads: heads as usize, kv_heads: kv_heads as usize, head_dim: head_dim as usize }
}

fn zip(out: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b);
    }
}

/// The processor's name as the system tells it, else the architecture.
fn processor_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
