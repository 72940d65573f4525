//! Makes the rows of a site again, piece by piece.

use super::{Derivation, Recorded};
use crate::backend::{Arithmetic, Backend, Batch, ReferenceBackend, ReferenceWeight};
use crate::error::{Error, Result};
use crate::graph::{Graph, Operation, RowAxes, Site, SiteId};
use crate::model::{Model, WeightKey};
use crate::tensor::{Extent, Rows};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the tensors that a piece holds at a time, about.
const PIECE_BYTES: usize = 16 << 20;

/// A site that is made again: its derivation, the weights of it, the cache that it reads.
#[derive(Debug)]
pub struct Evaluation<'a> {
    graph: &'a Graph,
    recorded: &'a Recorded,
    derivation: &'a Derivation,
    backend: ReferenceBackend,
    weights: HashMap<SiteId, Vec<ReferenceWeight>>,
    /// How far each cache is filled.
    filled: HashMap<SiteId, usize>,
    cache_shift: isize,
}

impl<'a> Evaluation<'a> {
    /// Ready to make rows of the site of `derivation`, with the weights of `model` and rounded as `arithmetic` says.
    ///
    /// # Errors
    /// Malformed, where the model lacks a weight that an operation reads.
    pub fn new(
        model: &Model,
        graph: &'a Graph,
        recorded: &'a Recorded,
        derivation: &'a Derivation,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let load = |key: WeightKey| ReferenceWeight::new(model.weight(key)?);
        Evaluation::with_weights(graph, recorded, derivation, arithmetic, load)
    }

    /// The same with the weights that `load` makes.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn with_weights(
        graph: &'a Graph,
        recorded: &'a Recorded,
        derivation: &'a Derivation,
        arithmetic: Arithmetic,
        load: impl Fn(WeightKey) -> Result<ReferenceWeight>,
    ) -> Result<Self> {
        let mut weights = HashMap::new();
        for id in derivation.through.iter().chain([&derivation.site]) {
            let keys = site(graph, *id)?.weights.iter();
            let loaded = keys.map(|key| load(*key)).collect::<Result<Vec<_>>>()?;
            weights.insert(*id, loaded);
        }
        let backend = ReferenceBackend::new(arithmetic);
        Ok(Evaluation { graph, recorded, derivation, backend, weights, filled: HashMap::new(), cache_shift: 0 })
    }

    /// The positions of the derivation in pieces, so that the tensors of one stay within a few MiB; a row at least.
    pub fn pieces(&self) -> Vec<Range<usize>> {
        let held: Vec<RowAxes> =
            self.held().filter_map(|id| self.graph.sites.get(id as usize)).map(|s| s.axes).collect();
        let bytes = |position: usize| held.iter().map(|axes| row_bytes(*axes, position)).fold(0, usize::saturating_add);
        let mut pieces = Vec::new();
        for range in &self.derivation.positions {
            let (mut start, mut total) = (range.start, 0usize);
            for position in range.clone() {
                let row = bytes(position);
                total = total.saturating_add(row);
                if total > PIECE_BYTES && position > start {
                    pieces.push(start..position);
                    (start, total) = (position, row);
                }
            }
            pieces.push(start..range.end);
        }
        pieces
    }

    /// Reads recorded caches as if every row stood `shift` positions later; at the ends the outermost row is repeated.
    #[must_use]
    pub fn with_cache_shift(mut self, shift: isize) -> Self {
        self.cache_shift = shift;
        self
    }

    /// The rows of the site at `positions`; pieces in ascending order fill a cache once.
    ///
    /// # Errors
    /// Those of reading the recorded values; Malformed and Damaged, where a row is none that the operation can read.
    pub fn rows(&mut self, positions: Range<usize>) -> Result<Rows> {
        for cache in &self.derivation.caches {
            self.fill(*cache, positions.end)?;
        }
        let mut made = HashMap::new();
        self.make(self.derivation.site, &positions, &mut made)
    }

    /// The inputs of the site at `positions`, recorded or made again, in the order of the site; caches are left out.
    ///
    /// # Errors
    /// As [`Evaluation::rows`].
    pub fn inputs(&mut self, positions: Range<usize>) -> Result<Vec<Rows>> {
        let ids = site(self.graph, self.derivation.site)?.inputs.clone();
        let mut made = HashMap::new();
        let streamed = ids.iter().filter(|id| !self.is_cache_read(self.derivation.site, **id));
        streamed.copied().collect::<Vec<_>>().into_iter().map(|id| self.take(id, &positions, &mut made)).collect()
    }

    fn held(&self) -> impl Iterator<Item = SiteId> + '_ {
        self.derivation.through.iter().chain(&self.derivation.reads).copied().chain([self.derivation.site])
    }

    /// Attention reads a cache by itself, whichever rows are at hand.
    fn is_cache_read(&self, reader: SiteId, input: SiteId) -> bool {
        let operation = self.graph.sites.get(reader as usize).map(|site| site.operation);
        let attends = matches!(operation, Some(Operation::AttnScores { .. } | Operation::AttnContext { .. }));
        attends && self.derivation.caches.contains(&input)
    }

    /// Fills a cache up to `end`: with the recorded rows as they are, or with rows made again.
    fn fill(&mut self, cache: SiteId, end: usize) -> Result<()> {
        let own = site(self.graph, cache)?;
        let width = own.axes.width().unwrap_or(1) as usize;
        let rows = (PIECE_BYTES / size_of::<f32>() / width.max(1)).max(1);
        let mut start = self.filled.get(&cache).copied().unwrap_or(0);
        while start < end {
            let piece = start..(start + rows).min(end);
            if self.derivation.reads.contains(&cache) {
                let rows = self.cached(cache, &piece, end)?;
                self.backend.fill_cache(own, piece.start, &rows)?;
            } else {
                self.make(cache, &piece, &mut HashMap::new())?;
            }
            start = piece.end;
        }
        self.filled.insert(cache, start);
        Ok(())
    }

    /// The recorded rows that a cache of `end` positions holds at `piece`.
    fn cached(&self, cache: SiteId, piece: &Range<usize>, end: usize) -> Result<Rows> {
        if self.cache_shift == 0 {
            return self.recorded.values(cache, piece.clone());
        }
        let source = |position: usize| position.saturating_add_signed(-self.cache_shift).min(end - 1);
        let (first, last) = (source(piece.start), source(piece.end - 1));
        let rows = self.recorded.values(cache, first..last + 1)?;
        let width = rows.width().unwrap_or(0);
        let values: Vec<f32> = piece.clone().flat_map(|position| rows.row(source(position) - first).to_vec()).collect();
        Rows::new(Arc::new(values), Extent::Width(width), piece.len())
            .ok_or_else(|| Error::internal("shifted rows do not fit their own extent"))
    }

    fn take(&mut self, id: SiteId, positions: &Range<usize>, made: &mut HashMap<SiteId, Rows>) -> Result<Rows> {
        if let Some(rows) = made.get(&id) {
            return Ok(rows.clone());
        }
        let rows = if self.derivation.reads.contains(&id) {
            self.recorded.values(id, positions.clone())?
        } else {
            self.make(id, positions, made)?
        };
        made.insert(id, rows.clone());
        Ok(rows)
    }

    fn make(&mut self, id: SiteId, positions: &Range<usize>, made: &mut HashMap<SiteId, Rows>) -> Result<Rows> {
        let own = site(self.graph, id)?;
        let streamed: BTreeSet<SiteId> =
            own.inputs.iter().copied().filter(|input| !self.is_cache_read(id, *input)).collect();
        let streamed = own.inputs.iter().filter(|input| streamed.contains(input));
        let inputs = streamed.map(|input| self.take(*input, positions, made)).collect::<Result<Vec<_>>>()?;
        self.check_widths(own, &inputs, positions)?;
        let inputs: Vec<&Rows> = inputs.iter().collect();
        let tokens = self.recorded.tokens().get(positions.clone());
        let tokens = tokens.ok_or_else(|| Error::internal("a position without a token"))?;
        // A cache that nothing here reads needs no rows before these.
        let unread = own.operation == Operation::CacheStore && !self.derivation.caches.contains(&id);
        let batch = Batch { tokens, first_position: if unread { 0 } else { positions.start } };
        let weights: Vec<&ReferenceWeight> = self.weights.get(&id).into_iter().flatten().collect();
        self.backend.execute(own, &inputs, &weights, batch)
    }

    /// A trace says itself how wide its rows are: they have to be as wide as the graph's.
    fn check_widths(&self, own: &Site, inputs: &[Rows], positions: &Range<usize>) -> Result<()> {
        let sites = own.inputs.iter().filter(|input| !self.is_cache_read(own.id, **input));
        for (id, rows) in sites.zip(inputs) {
            let input = site(self.graph, *id)?;
            let expected = |row: usize| row_bytes(input.axes, positions.start + row) / size_of::<f32>();
            if let Some(row) = (0..rows.len()).find(|row| rows.row(*row).len() != expected(*row)) {
                let message = format!(
                    "`{}` has {} elements at position {} where the model has {}: this run is of another model",
                    input.point,
                    rows.row(row).len(),
                    positions.start + row,
                    expected(row)
                );
                return Err(Error::new(crate::ErrorKind::NotComparable, message));
            }
        }
        Ok(())
    }
}

fn site(graph: &Graph, id: SiteId) -> Result<&Site> {
    graph.sites.get(id as usize).ok_or_else(|| Error::internal("a derivation of another graph"))
}

fn row_bytes(axes: RowAxes, position: usize) -> usize {
    let elements = match axes {
        RowAxes::Keys { heads, window } => {
            let keys = (position + 1).min(window.map_or(usize::MAX, |window| window as usize));
            (heads as usize).saturating_mul(keys)
        }
        flat => flat.width().unwrap_or(0) as usize,
    };
    elements.saturating_mul(size_of::<f32>())
}
