//! Attention over the cache: whole for a few rows, stage by stage for many.

use super::params::{Attention, NO_WINDOW, stage};
use super::tensor::CudaTensor;
use super::work::Work;
use super::{CudaBackend, count, missing};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::graph::{Operation, Site};

impl CudaBackend {
    /// Scores, probabilities and context.
    pub(super) fn attend(&mut self, site: &Site, inputs: &[&CudaTensor], batch: Batch<'_>) -> Result<CudaTensor> {
        let input = inputs.first().copied().ok_or_else(|| missing(site, "input"))?;
        let visible = batch.first_position + batch.tokens.len();
        let out = self.tensor(site, batch)?;
        let common = |heads: u32, window: Option<u32>| Attention {
            step: self.step.address(),
            heads,
            kv_heads: 1,
            first_row: out.first_row,
            rows: batch.tokens.len() as u32,
            window: window.unwrap_or(NO_WINDOW),
            ..Attention::default()
        };
        let params = match site.operation {
            Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => Attention {
                q: input.address(),
                keys: self.cached(site, visible)?,
                scores: out.address(),
                kv_heads,
                head_dim,
                scale,
                cap: softcap.unwrap_or(0.0),
                stages: stage::SCORES,
                ..common(heads, window)
            },
            Operation::Softmax { heads, window } => Attention {
                scores: input.address(),
                probabilities: out.address(),
                stages: stage::SOFTMAX,
                ..common(heads, window)
            },
            Operation::AttnContext { heads, kv_heads, head_dim, window } => Attention {
                probabilities: input.address(),
                values: self.cached(site, visible)?,
                context: out.address(),
                kv_heads,
                head_dim,
                stages: stage::CONTEXT,
                ..common(heads, window)
            },
            _ => return Err(super::misplaced(site)),
        };
        self.submit_stage(params, visible)?;
        Ok(out)
    }

    fn submit_stage(&mut self, params: Attention, visible: usize) -> Result<()> {
        if self.memory.repeats() {
            self.queue.attention(params);
            return Ok(());
        }
        self.submit(match params.stages {
            stage::SCORES => Work::AttentionScores { params, visible: count(visible)? },
            stage::SOFTMAX => Work::AttentionSoftmax(params),
            _ => Work::AttentionContext(params),
        })
    }

    /// The cache that `site` reads, for a batch that ends before `visible`.
    fn cached(&self, site: &Site, visible: usize) -> Result<u64> {
        let stored = site.inputs.get(1).and_then(|id| self.cache.get(id)).filter(|_| visible <= self.positions);
        let stored = stored.map(|memory| memory.address());
        stored.ok_or_else(|| Error::internal(format!("`{}` reads positions that are not in the cache", site.point)))
    }
}
