//! Launches that wait for company: what follows a product element by element goes with it, products of one input go
//! together, and a step that repeats is launched as one graph.
//!
//! Nothing that was asked for is left out: a launch that makes several tensors writes all of them, so that observing
//! changes neither which kernels run nor what they compute.

use super::device::Device;
use super::params::{
    Attention, ElementOperation, MOST_MATVEC_JOBS, MOST_POINTWISE_JOBS, Matvec, MatvecJob, Norm, Pointwise,
    PointwiseJob, stage,
};
use super::q4k::{self, Card};
use super::work::{Work, matvec_tiles, pointwise_blocks};
use crate::error::Result;
use crate::model::TensorType;
use cudarc::driver::CudaGraph;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sequences of launches that are remembered: those of all layers of a deep model, for both arenas.
const MOST_GRAPHS: usize = 512;

/// Counters of what goes with products: of the tiles of four rows of a million outputs.
pub(super) const COUNTERS: usize = 1 << 18;

/// What the fused launches make together, for a run's identity.
pub(super) const FUSED: [&str; 8] = [
    "rms_norm + products of one input",
    "products + rope + cache_store",
    "products + activation + multiply",
    "products of one input",
    "product + bias + add",
    "rope + cache_store",
    "activation + multiply",
    "attn_scores + softmax + attn_context",
];

/// Launches of a few rows, collected until something has to be known of them.
pub(super) struct Queue {
    works: Vec<Work>,
    card: Card,
    /// [`COUNTERS`] zeros on the card.
    counters: u64,
    seen: VecDeque<Seen>,
}

/// A sequence that was launched before.
struct Seen {
    works: Vec<Work>,
    graph: Option<CudaGraph>,
}

impl Queue {
    /// An empty queue for `card`, which has [`COUNTERS`] zeros of 32 bits at `counters`.
    pub(super) fn new(card: Card, counters: u64) -> Self {
        Queue { works: Vec::new(), card, counters, seen: VecDeque::new() }
    }

    /// Adds a launch that stands alone.
    pub(super) fn push(&mut self, work: Work) {
        self.works.push(work);
    }

    /// Adds a product of `rows` rows; it joins the launch before it where that multiplies the same input, or makes it by a
    /// norm.
    pub(super) fn product(&mut self, tensor_type: TensorType, rows: u32, mut job: MatvecJob) {
        if let Some(Work::Matvec { tensor_type: last, rows: m, params, .. }) = self.works.last_mut() {
            let with = &params.jobs[0];
            let fits = (*last, *m, with.x, with.columns) == (tensor_type, rows, job.x, job.columns);
            if fits && (params.count as usize) < MOST_MATVEC_JOBS {
                job.first_block = matvec_tiles(params, tensor_type, &self.card);
                params.jobs[params.count as usize] = job;
                params.count += 1;
                return;
            }
        }
        let plan = q4k::plan(job.columns, &self.card);
        let own = tensor_type == TensorType::Q4K && self.card.multiplies_bytes();
        let norm = if own && plan.norms(job.columns) { self.norm_of(rows, job.x) } else { None };
        let norm = norm.unwrap_or_default();
        let mut params = Box::new(Matvec { count: 1, slab: plan.slab, norm, ..Matvec::default() });
        params.jobs[0] = job;
        self.works.push(Work::Matvec { tensor_type, rows, card: self.card, params });
    }

    /// Takes the RMS norm of `rows` rows that makes `x` away, where it is the last launch.
    fn norm_of(&mut self, rows: u32, x: u64) -> Option<Norm> {
        let Some(Work::Norm { rows: m, params }) = self.works.last() else { return None };
        let norm = *params;
        if (*m, norm.out, norm.bias) != (rows, x, 0) {
            return None;
        }
        self.works.pop();
        Some(norm)
    }

    /// The product of the last launch whose newest result is at `address`.
    fn product_of(&mut self, address: u64) -> Option<&mut MatvecJob> {
        let Some(Work::Matvec { params, .. }) = self.works.last_mut() else { return None };
        let count = params.count as usize;
        params.jobs[..count].iter_mut().find(|job| {
            let newest = if job.bias == 0 { job.y } else { job.biased };
            job.addend == 0 && newest == address
        })
    }

    /// Whether the last launch writes to `address`; 0 is none.
    fn writes(&self, address: u64) -> bool {
        match self.works.last() {
            _ if address == 0 => false,
            Some(Work::Matvec { params, .. }) => {
                let jobs = &params.jobs[..params.count as usize];
                jobs.iter().any(|job| [job.y, job.biased, job.sum, params.norm.out].contains(&address))
            }
            Some(Work::Pointwise(params)) => {
                let jobs = &params.jobs[..params.count as usize];
                jobs.iter().any(|job| [job.out, job.next_out].contains(&address))
            }
            _ => true,
        }
    }

    /// Adds `job`; biases and residual adds go with the product before them, a multiplication or a store with the
    /// element operation that it follows.
    pub(super) fn pointwise(&mut self, step: u64, mut job: PointwiseJob) {
        use ElementOperation::{Add, Bias, Multiply, Nothing, Store};
        if job.operation == Bias
            && let Some(product) = self.product_of(job.x)
            && product.bias == 0
        {
            (product.bias, product.biased) = (job.y, job.out);
            return;
        }
        if job.operation == Add {
            for (made, other) in [(job.x, job.y), (job.y, job.x)] {
                if !self.writes(other)
                    && let Some(product) = self.product_of(made)
                {
                    (product.addend, product.sum) = (other, job.out);
                    return;
                }
            }
        }
        let other_written = self.writes(job.y);
        let independent = !self.writes(job.x) && !other_written;
        if let Some(Work::Pointwise(params)) = self.works.last_mut() {
            let count = params.count as usize;
            let follows = |last: &&mut PointwiseJob| last.next == Nothing && last.out != 0 && last.out == job.x;
            let chains = matches!(job.operation, Multiply | Store) && !other_written;
            if let (true, Some(last)) = (chains, params.jobs[..count].iter_mut().find(follows)) {
                last.next = job.operation;
                (last.next_y, last.next_out) =
                    if job.operation == Store { (0, job.next_out) } else { (job.y, job.out) };
                return;
            }
            if independent && count < MOST_POINTWISE_JOBS {
                job.first_block = pointwise_blocks(params);
                params.jobs[count] = stored(job);
                params.count += 1;
                return;
            }
        }
        let mut params = Box::new(Pointwise { step, count: 1, ..Pointwise::default() });
        params.jobs[0] = stored(job);
        self.works.push(Work::Pointwise(params));
    }

    /// Adds one stage of attention; it joins the stages before it.
    pub(super) fn attention(&mut self, params: Attention) {
        if let Some(Work::AttentionFew(last)) = self.works.last_mut() {
            let same = (last.heads, last.first_row, last.rows) == (params.heads, params.first_row, params.rows);
            if same && params.stages == stage::SOFTMAX && last.stages == stage::SCORES && last.scores == params.scores {
                last.probabilities = params.probabilities;
                last.stages |= stage::SOFTMAX;
                return;
            }
            let probabilities = last.stages & stage::SOFTMAX != 0 && last.probabilities == params.probabilities;
            if same && params.stages == stage::CONTEXT && probabilities {
                (last.values, last.context) = (params.values, params.context);
                (last.kv_heads, last.head_dim) = (params.kv_heads, params.head_dim);
                last.stages |= stage::CONTEXT;
                return;
            }
        }
        self.works.push(Work::AttentionFew(Attention { parts: self.card.cluster(), ..params }));
    }

    /// Launches everything. Where batches repeat, a sequence goes one by one the first time, and as a graph from the
    /// second on.
    pub(super) fn launch(&mut self, device: &Arc<Device>, repeats: bool) -> Result<()> {
        let works = joined(std::mem::take(&mut self.works), self.counters);
        if works.is_empty() {
            return Ok(());
        }
        if !repeats {
            return works.iter().try_for_each(|work| device.launch(work, false));
        }
        // A run repeats its layers in order, so the one that is due is at the front.
        if let Some(place) = self.seen.iter().position(|seen| seen.works == works)
            && let Some(mut seen) = self.seen.remove(place)
        {
            // What other threads of the process do on the card can spoil a capture. The launches are the same without.
            let graph = match seen.graph.take() {
                None => device.graph(&seen.works).ok(),
                captured => captured,
            };
            match &graph {
                Some(graph) => super::device::check("launch a graph", graph.launch())?,
                None => seen.works.iter().try_for_each(|work| device.launch(work, true))?,
            }
            self.seen.push_back(Seen { graph, ..seen });
            return Ok(());
        }
        works.iter().try_for_each(|work| device.launch(work, true))?;
        if self.seen.len() == MOST_GRAPHS {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { works, graph: None });
        Ok(())
    }

    /// Forgets every launch that was not made.
    pub(super) fn clear(&mut self) {
        self.works.clear();
    }
}

/// The same works, but element operations that only read what the product in front of them makes go with it.
fn joined(works: Vec<Work>, counters: u64) -> Vec<Work> {
    let mut joined: Vec<Work> = Vec::with_capacity(works.len());
    for work in works {
        if let (Some(Work::Matvec { tensor_type: TensorType::Q4K, rows, card, params }), Work::Pointwise(after)) =
            (joined.last_mut(), &work)
            && card.multiplies_bytes()
            && params.after.count == 0
            && let Some(after) = following(params, *rows, after)
        {
            (params.after, params.counters) = (after, counters);
            continue;
        }
        joined.push(work);
    }
    joined
}

/// `after` as what goes with `products` of `rows` rows, if it can: every operation reads some of their results, tile by
/// tile or head by head.
fn following(products: &Matvec, rows: u32, after: &Pointwise) -> Option<Pointwise> {
    let products = products.jobs.get(..products.count as usize)?;
    let (mut after, mut counters) = (*after, 0);
    for job in after.jobs.get_mut(..after.count as usize)? {
        let mut width = true;
        for (number, product) in products.iter().enumerate() {
            let made = [product.y, product.biased, product.sum];
            if [job.x, job.y, job.next_y].iter().any(|read| *read != 0 && made.contains(read)) {
                job.sources |= 1 << number;
                width &= product.rows == job.width;
            }
        }
        let heads = job.operation == ElementOperation::Rope;
        let fits = !heads || job.head_dim.is_multiple_of(q4k::TILE) && job.width.is_multiple_of(job.head_dim);
        if job.sources == 0 || !width || !fits || job.rows != rows {
            return None;
        }
        job.first_block = counters;
        counters += rows * job.width.div_ceil(if heads { job.head_dim } else { q4k::TILE });
    }
    (counters as usize <= COUNTERS).then_some(after)
}

/// A store that stands alone is what follows nothing.
fn stored(mut job: PointwiseJob) -> PointwiseJob {
    if job.operation == ElementOperation::Store {
        job.next = ElementOperation::Store;
    }
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use ElementOperation::{Add, Bias, Multiply, Nothing, Rope, Silu, Store};

    fn product(x: u64, y: u64) -> MatvecJob {
        MatvecJob { weight: 900 + y, x, y, rows: 64, columns: 256, ..MatvecJob::default() }
    }

    fn element(operation: ElementOperation, x: u64, y: u64, out: u64) -> PointwiseJob {
        PointwiseJob { operation, x, y, out, width: 64, rows: 1, ..PointwiseJob::default() }
    }

    fn queue() -> Queue {
        let (shared_block, shared_multiprocessor) = (232_448, 233_472);
        Queue::new(Card { capability: (9, 0), multiprocessors: 132, shared_block, shared_multiprocessor }, 8)
    }

    #[test]
    fn products_of_one_input_take_their_biases_along_and_write_both() {
        let mut queue = queue();
        for (y, bias, biased) in [(10, 20, 30), (11, 21, 31)] {
            queue.product(TensorType::Q4K, 1, product(1, y));
            queue.pointwise(0, element(Bias, y, bias, biased));
        }
        let [Work::Matvec { params, .. }] = queue.works.as_slice() else { panic!("{:?}", queue.works) };
        assert_eq!((params.count, params.jobs[1].first_block), (2, 4));
        let written = |job: &MatvecJob| (job.y, job.bias, job.biased);
        assert_eq!((written(&params.jobs[0]), written(&params.jobs[1])), ((10, 20, 30), (11, 21, 31)));
        queue.product(TensorType::Q6K, 1, product(1, 12));
        queue.product(TensorType::Q6K, 1, product(2, 13));
        assert_eq!(queue.works.len(), 3, "another type or another input is another launch");
    }

    #[test]
    fn an_rms_norm_goes_with_the_products_of_what_it_makes() {
        let norm = Norm { x: 5, gain: 6, out: 1, width: 256, ..Norm::default() };
        let first = |rows: u32, norm: Norm, tensor_type: TensorType| {
            let mut queue = queue();
            queue.push(Work::Norm { rows, params: norm });
            queue.product(tensor_type, 1, product(1, 10));
            queue.product(tensor_type, 1, product(1, 11));
            queue
        };
        let mut joined = first(1, norm, TensorType::Q4K);
        let [Work::Matvec { params, .. }] = joined.works.as_slice() else { panic!("{:?}", joined.works) };
        assert_eq!((params.norm, params.count), (norm, 2));
        joined.pointwise(0, element(Add, 11, 1, 40));
        assert_eq!(joined.works.len(), 2, "what the norm makes is made there too");
        for (rows, norm, tensor_type) in [
            (2, norm, TensorType::Q4K),
            (1, Norm { bias: 7, ..norm }, TensorType::Q4K),
            (1, Norm { out: 2, ..norm }, TensorType::Q4K),
            (1, norm, TensorType::Q6K),
        ] {
            assert_eq!(first(rows, norm, tensor_type).works.len(), 2, "{tensor_type:?} {norm:?}");
        }
    }

    #[test]
    fn what_reads_a_product_tile_by_tile_goes_with_it_when_it_is_launched() {
        let products = || {
            let mut queue = queue();
            queue.product(TensorType::Q4K, 2, product(1, 10));
            queue.product(TensorType::Q4K, 2, product(1, 11));
            queue
        };
        let pair = |job: PointwiseJob| PointwiseJob { rows: 2, ..job };
        let mut gated = products();
        gated.pointwise(0, pair(element(Silu, 10, 0, 20)));
        gated.pointwise(0, pair(element(Multiply, 20, 11, 21)));
        let joined = joined(gated.works, 8);
        let [Work::Matvec { params, .. }] = joined.as_slice() else { panic!("{joined:?}") };
        assert_eq!((params.after.count, params.after.jobs[0].sources, params.counters), (1, 0b11, 8));
        let mut rotated = products();
        rotated.pointwise(0, PointwiseJob { head_dim: 32, rotary_dim: 32, ..pair(element(Rope, 10, 9, 20)) });
        rotated.pointwise(0, PointwiseJob { next_out: 70, ..pair(element(Store, 11, 0, 0)) });
        let joined = super::joined(rotated.works, 8);
        let [Work::Matvec { params, .. }] = joined.as_slice() else { panic!("{joined:?}") };
        let of = |job: &PointwiseJob| (job.sources, job.first_block);
        assert_eq!((of(&params.after.jobs[0]), of(&params.after.jobs[1])), ((0b1, 0), (0b10, 4)));
        for job in [
            element(Silu, 10, 0, 20),
            pair(element(Silu, 30, 0, 20)),
            pair(PointwiseJob { width: 32, ..element(Silu, 10, 0, 20) }),
            pair(PointwiseJob { head_dim: 8, ..element(Rope, 10, 9, 20) }),
        ] {
            let mut queue = products();
            queue.pointwise(0, job);
            assert_eq!(super::joined(queue.works, 8).len(), 2, "{job:?}");
        }
    }

    #[test]
    fn a_residual_add_goes_with_its_product_unless_the_other_side_is_made_there_too() {
        let mut queue = queue();
        queue.product(TensorType::Q4K, 1, product(1, 10));
        queue.pointwise(0, element(Add, 5, 10, 40));
        let [Work::Matvec { params, .. }] = queue.works.as_slice() else { panic!("{:?}", queue.works) };
        assert_eq!((params.jobs[0].y, params.jobs[0].addend, params.jobs[0].sum), (10, 5, 40));
        queue.product(TensorType::Q4K, 1, product(40, 11));
        queue.product(TensorType::Q4K, 1, product(40, 12));
        queue.pointwise(0, element(Add, 11, 12, 41));
        assert_eq!(queue.works.len(), 3, "the sum of two results of one launch comes behind it");
    }

    #[test]
    fn what_follows_an_element_operation_goes_with_it() {
        let mut queue = queue();
        queue.pointwise(0, element(Rope, 1, 2, 10));
        queue.pointwise(0, element(Rope, 3, 2, 11));
        queue.pointwise(0, PointwiseJob { next_out: 70, ..element(Store, 11, 0, 0) });
        queue.pointwise(0, PointwiseJob { next_out: 71, ..element(Store, 4, 0, 0) });
        let [Work::Pointwise(params)] = queue.works.as_slice() else { panic!("{:?}", queue.works) };
        let next: Vec<_> = params.jobs[..3].iter().map(|job| (job.operation, job.next, job.next_out)).collect();
        assert_eq!(next, [(Rope, Nothing, 0), (Rope, Store, 70), (Store, Store, 71)]);
        queue.pointwise(0, element(Silu, 20, 0, 21));
        queue.pointwise(0, element(Multiply, 21, 22, 23));
        queue.pointwise(0, element(Silu, 23, 0, 24));
        let [_, Work::Pointwise(last)] = queue.works.as_slice() else { panic!("{:?}", queue.works) };
        assert_eq!((last.count, last.jobs[0].x), (1, 23), "what reads a result waits for its launch");
    }

    #[test]
    fn the_stages_of_attention_are_one_launch_that_writes_all_three() {
        let mut queue = queue();
        let whole = Attention { heads: 4, rows: 1, scores: 10, ..Attention::default() };
        queue.attention(Attention { stages: stage::SCORES, q: 1, keys: 2, ..whole });
        queue.attention(Attention { stages: stage::SOFTMAX, probabilities: 11, ..whole });
        let context = Attention { scores: 0, probabilities: 11, values: 3, context: 12, ..whole };
        queue.attention(Attention { stages: stage::CONTEXT, ..context });
        let [Work::AttentionFew(params)] = queue.works.as_slice() else { panic!("{:?}", queue.works) };
        assert_eq!(params.stages, stage::SCORES | stage::SOFTMAX | stage::CONTEXT);
        assert_eq!((params.scores, params.probabilities, params.context, params.values), (10, 11, 12, 3));
        queue.attention(Attention { stages: stage::SOFTMAX, probabilities: 13, ..whole });
        assert_eq!(queue.works.len(), 2, "another softmax is another launch");
    }
}
