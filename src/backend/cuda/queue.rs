//! Launches that wait for company: what follows a product element by element goes with it, products of one input go
//! together, and a step that repeats is launched as one graph.
//!
//! Nothing that was asked for is left out: a launch that makes several tensors writes all of them, with the bits that they
//! have in launches of their own, so that observing changes nothing of what is computed.

use super::device::Device;
use super::params::{
    After, Attention, ElementOperation, MOST_MATVEC_JOBS, MOST_POINTWISE_JOBS, Matvec, MatvecJob, Norm, Pointwise,
    PointwiseJob, stage,
};
use super::q4k::{self, Card};
use super::work::{Work, matvec_tiles, pointwise_blocks};
use crate::error::Result;
use crate::model::TensorType;
use ElementOperation::{GeluErf, GeluQuick, GeluTanh, Multiply, Nothing, Rope, Silu, Store};
use cudarc::driver::CudaGraph;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sequences of launches that are remembered: those of all layers of a deep model, for both arenas.
const MOST_GRAPHS: usize = 512;

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
    /// Blocks that share a head of attention.
    parts: u32,
    seen: VecDeque<Seen>,
}

/// A sequence that was launched before.
struct Seen {
    works: Vec<Work>,
    graph: Option<CudaGraph>,
}

impl Queue {
    /// An empty queue for `card`, of which `parts` blocks may share a head of attention.
    pub(super) fn new(card: Card, parts: u32) -> Self {
        Queue { works: Vec::new(), card, parts, seen: VecDeque::new() }
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
        let norms = self.card.multiplies_bytes(tensor_type) && plan.norms(job.columns);
        let norm = if norms { self.norm_of(rows, job.x) } else { None };
        let norm = norm.unwrap_or_default();
        let mut params = Box::new(Matvec { count: 1, slab: plan.slab, norm, ..Matvec::default() });
        params.jobs[0] = job;
        self.works.push(Work::Matvec { tensor_type, rows, card: self.card, params });
    }

    /// Removes and returns the RMS norm of `rows` rows that makes `x`, where it is the last launch.
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
        params.jobs[..count].iter_mut().find(|job| job.addend == 0 && job.newest() == address)
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
        use ElementOperation::{Add, Bias};
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
        self.works.push(Work::AttentionFew(Attention { parts: self.parts, ..params }));
    }

    /// Launches everything. Where batches repeat, a sequence goes one by one the first time, and as a graph from the
    /// second on.
    pub(super) fn launch(&mut self, device: &Arc<Device>, repeats: bool) -> Result<()> {
        let works = joined(std::mem::take(&mut self.works));
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

/// The same works, but element operations that only read what the Q4_K products in front of them make go with those.
fn joined(works: Vec<Work>) -> Vec<Work> {
    let mut joined: Vec<Work> = Vec::with_capacity(works.len());
    for work in works {
        if let (Some(Work::Matvec { tensor_type, rows, card, params }), Work::Pointwise(after)) =
            (joined.last_mut(), &work)
            && card.multiplies_bytes(*tensor_type)
            && let Some(all) = followed(params, *rows, after)
        {
            **params = all;
            continue;
        }
        joined.push(work);
    }
    joined
}

/// `products` of `rows` rows and all that is `after` them, if none of that reads more than one tile makes.
fn followed(products: &Matvec, rows: u32, after: &Pointwise) -> Option<Matvec> {
    let mut all = Matvec { step: after.step, ..*products };
    for job in after.jobs.get(..after.count as usize)? {
        let products = all.jobs.get_mut(..all.count as usize)?;
        let product = products.iter().position(|product| product.newest() == job.x)?;
        if (job.rows, job.width) != (rows, products[product].rows) || products[product].is_followed() {
            return None;
        }
        let (first, last) = products.split_at_mut(product + 1);
        let product = first.last_mut()?;
        product.after = After { operation: job.operation, out: job.out, first_row: job.first_row, ..After::default() };
        match (job.operation, job.next) {
            (Store, Store) => (product.after.operation, product.after.cache) = (Nothing, job.next_out),
            (Rope, next @ (Nothing | Store)) if product.turns_in_tiles(job) => {
                (product.after.turns, product.after.head_dim) = (job.y, job.head_dim);
                product.after.cache = if next == Store { job.next_out } else { 0 };
            }
            (Silu | GeluTanh | GeluErf | GeluQuick, Nothing) => {}
            (Silu | GeluTanh | GeluErf | GeluQuick, Multiply) => {
                let ([_], [other]) = (first, last) else { return None };
                if other.newest() != job.next_y || other.rows != job.width || other.is_followed() {
                    return None;
                }
                other.after = After { operation: Multiply, out: job.next_out, ..After::default() };
                (other.first_block, all.paired) = (0, 1);
            }
            _ => return None,
        }
    }
    Some(all)
}

impl MatvecJob {
    /// Where the last of its results is.
    fn newest(&self) -> u64 {
        match self {
            _ if self.addend != 0 => self.sum,
            _ if self.bias != 0 => self.biased,
            _ => self.y,
        }
    }

    fn is_followed(&self) -> bool {
        self.after != After::default()
    }

    /// Whether `rope` turns whole heads of it, of which a tile can have the elements that turn together. Tiles count bytes
    /// of a head in 32 bits.
    fn turns_in_tiles(&self, rope: &PointwiseJob) -> bool {
        let heads = rope.head_dim.is_multiple_of(q4k::TILE) && self.rows.is_multiple_of(rope.head_dim);
        heads && rope.rotary_dim == rope.head_dim && u64::from(rope.head_dim) * u64::from(self.columns) < 1 << 32
    }
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
    use ElementOperation::{Add, Bias};

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
        let products = |bias| {
            let mut queue = queue();
            for y in [10, 11] {
                queue.product(TensorType::Q4K, 2, product(1, y));
                if bias != 0 {
                    queue.pointwise(8, element(Bias, y, bias, y + 20));
                }
            }
            queue
        };
        let pair = |job: PointwiseJob| PointwiseJob { rows: 2, ..job };
        let rope = PointwiseJob { head_dim: 32, rotary_dim: 32, ..pair(element(Rope, 30, 9, 20)) };
        let one = |works: Vec<Work>| match joined(works).as_slice() {
            [Work::Matvec { params, .. }] => (**params, [params.jobs[0].after, params.jobs[1].after]),
            other => panic!("{other:?}"),
        };
        let mut gated = products(0);
        gated.pointwise(8, pair(element(Silu, 10, 0, 20)));
        gated.pointwise(8, pair(element(Multiply, 20, 11, 21)));
        let (all, after) = one(gated.works);
        let activated = After { operation: Silu, out: 20, ..After::default() };
        assert_eq!(
            (all.paired, all.jobs[1].first_block, after),
            (1, 0, [activated, After { operation: Multiply, out: 21, ..activated }])
        );
        let mut rotated = products(5);
        rotated.pointwise(8, PointwiseJob { first_row: 3, ..rope });
        rotated.pointwise(8, PointwiseJob { next_out: 70, ..pair(element(Store, 20, 0, 0)) });
        rotated.pointwise(8, PointwiseJob { next_out: 71, ..pair(element(Store, 31, 0, 0)) });
        let (all, after) = one(rotated.works);
        let turned =
            After { operation: Rope, out: 20, turns: 9, cache: 70, head_dim: 32, first_row: 3, ..After::default() };
        assert_eq!((all.paired, all.step, after), (0, 8, [turned, After { cache: 71, ..After::default() }]));
        for job in [
            element(Silu, 30, 0, 20),
            pair(element(Silu, 10, 0, 20)),
            pair(element(Add, 30, 7, 20)),
            pair(PointwiseJob { width: 32, ..element(Silu, 30, 0, 20) }),
            PointwiseJob { rotary_dim: 16, ..rope },
            PointwiseJob { head_dim: 8, rotary_dim: 8, ..rope },
            PointwiseJob { head_dim: 48, rotary_dim: 48, ..rope },
        ] {
            let mut queue = products(5);
            queue.works.push(Work::Pointwise(Box::new(Pointwise { count: 1, jobs: [job; 4], ..Pointwise::default() })));
            assert_eq!(joined(queue.works).len(), 2, "{job:?}");
        }
        for (activated, other) in [(11, 10), (10, 12)] {
            let mut queue = products(0);
            queue.pointwise(8, pair(element(Silu, activated, 0, 20)));
            queue.pointwise(8, pair(element(Multiply, 20, other, 21)));
            assert_eq!(joined(queue.works).len(), 2, "{activated} before {other}");
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
