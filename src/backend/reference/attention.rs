//! Attention over the cache: one head of one token at a time.

use super::Call;
use super::elements::soft_cap;
use super::formula::softmax;
use crate::error::Result;
use crate::graph::{Operation, SiteId};
use crate::tensor::{Extent, Rows};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// Scores, probabilities and context.
pub(super) fn attend(call: &Call<'_>, cache: &HashMap<SiteId, Vec<f32>>) -> Result<Rows> {
    match call.site.operation {
        Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => {
            let (shared, dim) = (Heads { heads, kv_heads }, head_dim as usize);
            let keys = Cached::new(call, cache, kv_heads as usize * dim)?;
            let q = call.x(0)?;
            let score = |row: usize, head: usize, out: &mut Vec<f32>| {
                let q = &q[(row * heads as usize + head) * dim..][..dim];
                for key in visible(call, row, window) {
                    let dot = dot(q, keys.row(key, shared.of(head), dim)) * f64::from(scale);
                    out.push(softcap.map_or(dot, |cap| soft_cap(dot, f64::from(cap))) as f32);
                }
            };
            ragged(call, heads as usize, window, score)
        }
        Operation::Softmax { heads, window } => {
            let x = call.input(0)?;
            let probabilities = |row: usize, head: usize, out: &mut Vec<f32>| {
                let keys = visible(call, row, window).len();
                let scores = x.row(row).get(head * keys..(head + 1) * keys).unwrap_or_default();
                out.extend(softmax(scores).into_iter().map(|p| p as f32));
            };
            ragged(call, heads as usize, window, probabilities)
        }
        Operation::AttnContext { heads, kv_heads, head_dim, window } => {
            let (shared, dim) = (Heads { heads, kv_heads }, head_dim as usize);
            let values = Cached::new(call, cache, kv_heads as usize * dim)?;
            let (p, width) = (call.input(0)?, call.width()?);
            let mut out = vec![0f32; call.rows() * width];
            out.par_chunks_exact_mut(width).enumerate().for_each(|(row, out)| {
                let seen = visible(call, row, window);
                for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                    let p = p.row(row).get(head * seen.len()..(head + 1) * seen.len()).unwrap_or_default();
                    let mut sums = vec![0f64; dim];
                    for (p, key) in p.iter().zip(seen.clone()) {
                        let value = values.row(key, shared.of(head), dim);
                        sums.iter_mut().zip(value).for_each(|(sum, v)| *sum += f64::from(*p) * f64::from(*v));
                    }
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
                }
            });
            call.made(out)
        }
        _ => Err(call.misplaced()),
    }
}

/// How query heads share those of keys and values.
#[derive(Clone, Copy)]
struct Heads {
    heads: u32,
    kv_heads: u32,
}

impl Heads {
    /// The head of keys and values that query head `head` reads.
    fn of(self, head: usize) -> usize {
        head / (self.heads / self.kv_heads.max(1)).max(1) as usize
    }
}

/// Cached rows of the second input's site.
struct Cached<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Cached<'a> {
    fn new(call: &Call<'_>, cache: &'a HashMap<SiteId, Vec<f32>>, width: usize) -> Result<Self> {
        let end = call.batch.first_position + call.rows();
        let values = call.site.inputs.get(1).and_then(|id| cache.get(id));
        let values = values.and_then(|values| values.get(..end * width));
        Ok(Cached { values: values.ok_or_else(|| call.missing("position in its cache"))?, width })
    }

    fn row(&self, position: usize, head: usize, dim: usize) -> &'a [f32] {
        self.values.get(position * self.width + head * dim..).and_then(|row| row.get(..dim)).unwrap_or_default()
    }
}

/// Positions that row `row` of the batch sees: those up to its own, the last `window` of them.
fn visible(call: &Call<'_>, row: usize, window: Option<u32>) -> Range<usize> {
    let end = call.batch.first_position + row + 1;
    window.map_or(0, |window| end.saturating_sub(window as usize))..end
}

/// Rows `[heads, visible keys]`, made head by head.
fn ragged(
    call: &Call<'_>,
    heads: usize,
    window: Option<u32>,
    make: impl Fn(usize, usize, &mut Vec<f32>) + Sync,
) -> Result<Rows> {
    let row = |row: usize| {
        let mut out = Vec::with_capacity(heads * visible(call, row, window).len());
        (0..heads).for_each(|head| make(row, head, &mut out));
        out
    };
    let rows: Vec<Vec<f32>> = (0..call.rows()).into_par_iter().map(row).collect();
    let mut offsets = vec![0];
    let mut values = Vec::with_capacity(rows.iter().map(Vec::len).sum());
    for row in rows {
        values.extend(row);
        offsets.push(values.len());
    }
    call.made_with(values, Extent::Offsets(offsets.into()))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
