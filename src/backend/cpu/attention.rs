//! Attention over the cache: plain f32, one head of one token at a time.

use super::kernels::Kernels;
use super::rowwise::soft_cap;
use super::{Call, CpuBackend};
use crate::error::Result;
use crate::graph::Operation;
use crate::tensor::{Extent, Rows};
use rayon::prelude::*;

impl CpuBackend {
    /// Scores, probabilities and context.
    pub(super) fn attend(&self, call: &Call<'_>) -> Result<Rows> {
        let (x, rows) = (call.x(0)?, call.rows());
        let visible = |window: Option<u32>| Visible { first_position: call.batch.first_position, window };
        let (values, offsets) = match call.site.operation {
            Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => {
                let (heads, visible) = (Heads::new(heads, kv_heads, head_dim), visible(window));
                let (offsets, keys) = (visible.offsets(rows, heads.heads), self.cached(call, heads)?);
                let over = Over { heads, visible, stored: keys, offsets: &offsets };
                (scores(self.kernels, &self.pool, over, (scale, softcap), x), offsets)
            }
            Operation::Softmax { heads, window } => {
                let offsets = visible(window).offsets(rows, heads as usize);
                if offsets.last() != Some(&x.len()) {
                    return Err(call.missing("score"));
                }
                (probabilities(self.kernels, &self.pool, heads as usize, x, &offsets), offsets)
            }
            Operation::AttnContext { heads, kv_heads, head_dim, window } => {
                let (heads, visible) = (Heads::new(heads, kv_heads, head_dim), visible(window));
                let (offsets, stored) = (visible.offsets(rows, heads.heads), self.cached(call, heads)?);
                let over = Over { heads, visible, stored, offsets: &offsets };
                return call.made(context(self.kernels, &self.pool, over, x));
            }
            _ => return Err(call.misplaced()),
        };
        call.made_with(values, Extent::Offsets(offsets.into()))
    }
}

/// Elements of work below which a second thread costs more than it brings.
const SMALL: usize = 1 << 15;

/// How heads share keys, and where their elements are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// What attention runs over: the cache, and which of it each row sees.
#[derive(Clone, Copy)]
struct Over<'a> {
    heads: Heads,
    visible: Visible,
    /// Keys or values of all positions so far.
    stored: &'a [f32],
    /// First elements of the ragged rows.
    offsets: &'a [usize],
}

impl Over<'_> {
    /// The keys or values that head `head` of row `row` sees, at the distance of a cached row.
    fn seen(&self, row: usize, head: usize) -> &[f32] {
        &self.stored[self.visible.first(row) * self.heads.stride() + self.heads.offset(head)..]
    }
}

impl Heads {
    fn new(heads: u32, kv_heads: u32, head_dim: u32) -> Self {
        Heads { heads: heads as usize, kv_heads: kv_heads as usize, head_dim: head_dim as usize }
    }

    /// Elements of a cached row.
    fn stride(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Where in a cached row the keys or values of query head `head` begin.
    fn offset(self, head: usize) -> usize {
        head / (self.heads / self.kv_heads) * self.head_dim
    }
}

/// Which keys the tokens of a batch see: those up to their own position, the last `window` of them.
#[derive(Debug, Clone, Copy)]
struct Visible {
    first_position: usize,
    window: Option<u32>,
}

impl Visible {
    /// Keys that row `row` of the batch sees.
    fn keys(self, row: usize) -> usize {
        let all = self.first_position + row + 1;
        self.window.map_or(all, |window| all.min(window as usize))
    }

    /// The first of them.
    fn first(self, row: usize) -> usize {
        self.first_position + row + 1 - self.keys(row)
    }

    /// The first elements of ragged rows `[heads, visible keys]`.
    fn offsets(self, rows: usize, heads: usize) -> Vec<usize> {
        let mut end = 0;
        let mut offsets = vec![0];
        for row in 0..rows {
            end += heads * self.keys(row);
            offsets.push(end);
        }
        offsets
    }
}

/// `q . k * scale` for every visible key, capped where there is a cap.
fn scores(
    kernels: Kernels,
    pool: &rayon::ThreadPool,
    over: Over<'_>,
    (scale, softcap): (f32, Option<f32>),
    q: &[f32],
) -> Vec<f32> {
    let Over { heads, offsets, .. } = over;
    let mut out = vec![0f32; offsets.last().copied().unwrap_or(0)];
    let tasks = by_head(&mut out, offsets, heads.heads);
    spread(pool, tasks, |(row, head, out)| {
        let at = (row * heads.heads + head) * heads.head_dim;
        let q = &q[at..at + heads.head_dim];
        kernels.scores(q, over.seen(row, head), heads.stride(), scale, out);
        if let Some(cap) = softcap {
            out.iter_mut().for_each(|score| *score = soft_cap(*score, cap));
        }
    });
    out
}

/// Softmax of each head's scores.
fn probabilities(
    kernels: Kernels,
    pool: &rayon::ThreadPool,
    heads: usize,
    scores: &[f32],
    offsets: &[usize],
) -> Vec<f32> {
    let mut out = vec![0f32; scores.len()];
    let tasks = by_head(&mut out, offsets, heads);
    spread(pool, tasks, |(row, head, out)| {
        let at = offsets[row] + head * out.len();
        kernels.softmax(&scores[at..at + out.len()], out);
    });
    out
}

/// Probability-weighted sum of values, heads side by side.
fn context(kernels: Kernels, pool: &rayon::ThreadPool, over: Over<'_>, probabilities: &[f32]) -> Vec<f32> {
    let Over { heads, offsets, .. } = over;
    let rows = offsets.len() - 1;
    let mut out = vec![0f32; rows * heads.heads * heads.head_dim];
    let tasks = out.chunks_mut(heads.head_dim).enumerate().map(|(i, out)| (i / heads.heads, i % heads.heads, out));
    spread(pool, tasks.collect(), |(row, head, out)| {
        let keys = (offsets[row + 1] - offsets[row]) / heads.heads;
        let p = &probabilities[offsets[row] + head * keys..][..keys];
        kernels.weighted_sum(p, over.seen(row, head), heads.stride(), out);
    });
    out
}

type Task<'a> = (usize, usize, &'a mut [f32]);

/// One slice for each head of each row.
fn by_head<'a>(mut out: &'a mut [f32], offsets: &[usize], heads: usize) -> Vec<Task<'a>> {
    let mut tasks = Vec::with_capacity((offsets.len() - 1) * heads);
    for (row, pair) in offsets.windows(2).enumerate() {
        for head in 0..heads {
            let (mine, rest) = std::mem::take(&mut out).split_at_mut((pair[1] - pair[0]) / heads);
            tasks.push((row, head, mine));
            out = rest;
        }
    }
    tasks
}

fn spread<'a>(pool: &rayon::ThreadPool, tasks: Vec<Task<'a>>, run: impl Fn(Task<'a>) + Sync + Send) {
    let work: usize = tasks.iter().map(|(_, _, out)| out.len()).sum();
    if work <= SMALL / 8 {
        tasks.into_iter().for_each(run);
    } else {
        pool.install(|| tasks.into_par_iter().for_each(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_at_the_token_and_moves_with_it() {
        let visible = Visible { first_position: 1, window: Some(3) };
        let seen: Vec<(usize, usize)> = (0..4).map(|row| (visible.first(row), visible.keys(row))).collect();
        assert_eq!(seen, [(0, 2), (0, 3), (1, 3), (2, 3)]);
        assert_eq!(visible.offsets(3, 2), [0, 4, 10, 16]);
        let all = Visible { first_position: 1, window: None };
        assert_eq!((all.first(5), all.keys(5)), (0, 7));
    }
}
