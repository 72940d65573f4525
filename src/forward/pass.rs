//! One batch through the graph.

use super::needs::{Ask, logits_parts, needs};
use super::{Forward, Observer, Wanted};
use crate::backend::{Backend, Batch, Choice};
use crate::error::{Error, Result};
use crate::graph::{Graph, RowAxes, Site};
use std::ops::Range;

/// Bytes of values that are shown at once, so that several threads can take a large tensor: those of a payload.
const PIECE_BYTES: usize = 4 << 20;

/// A tensor of some rows of the batch.
struct Held<T> {
    tensor: T,
    rows: Range<usize>,
}

/// For every site the last site that reads it; its own number where none does.
pub(super) fn last_readers(graph: &Graph) -> Vec<usize> {
    let mut last: Vec<usize> = (0..graph.sites.len()).collect();
    for (index, site) in graph.sites.iter().enumerate() {
        for input in &site.inputs {
            if let Some(last) = last.get_mut(*input as usize) {
                *last = index;
            }
        }
    }
    last
}

impl<B: Backend> Forward<B> {
    /// Evaluates `batch` and shows the observer what it wants. With `choose`, yields the choice after the last row.
    pub(super) fn pass(
        &mut self,
        batch: Batch<'_>,
        step: u32,
        choose: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Choice>> {
        let rows = batch.tokens.len();
        let ask = Ask { rows, choose, rows_stand_alone: self.backend.rows_stand_alone() };
        let wanted = self.wanted(batch, observer);
        let needs = needs(&self.graph, wanted.iter().map(|wanted| wanted.rows.clone()).collect(), ask)?;
        self.backend.begin(batch)?;
        let mut held: Vec<Option<Held<B::Tensor>>> = self.graph.sites.iter().map(|_| None).collect();
        let last = self.graph.sites.len().saturating_sub(1);
        for (index, need) in needs.into_iter().enumerate() {
            if need.is_empty() {
                self.release(index, &mut held);
                continue;
            }
            let parts = if index == last { logits_parts(need, ask) } else { vec![need] };
            for rows in parts {
                let tensor = self.run_site(index, &held, rows.clone(), batch)?;
                let made = Held { tensor, rows };
                self.show(index, &made, &wanted[index], batch.first_position, step, observer)?;
                held[index] = Some(made);
            }
            self.release(index, &mut held);
        }
        if !choose {
            return Ok(None);
        }
        let logits = held.last().and_then(Option::as_ref).ok_or_else(|| Error::internal("a graph without logits"))?;
        self.backend.choose(&logits.tensor).map(Some)
    }

    /// What the observer wants of every site of `batch`.
    fn wanted(&self, batch: Batch<'_>, observer: &mut dyn Observer) -> Vec<Wanted> {
        let rows = batch.tokens.len();
        let positions = batch.first_position..batch.first_position + rows;
        let sites = self.graph.sites.iter();
        sites
            .map(|site| match observer.wants(site.id, positions.clone()) {
                Some(Wanted { rows: wanted, values }) => {
                    Wanted { rows: wanted.start.min(rows)..wanted.end.min(rows), values }
                }
                None => Wanted { rows: 0..0, values: false },
            })
            .collect()
    }

    /// Runs site `index` for the rows `need` of the batch.
    fn run_site(
        &mut self,
        index: usize,
        held: &[Option<Held<B::Tensor>>],
        need: Range<usize>,
        batch: Batch<'_>,
    ) -> Result<B::Tensor> {
        let site = &self.graph.sites[index];
        let mut cut = Vec::with_capacity(site.inputs.len());
        for id in &site.inputs {
            let input = held.get(*id as usize).and_then(Option::as_ref).ok_or_else(|| lost(site))?;
            let part = need.start.checked_sub(input.rows.start).ok_or_else(|| lost(site))?;
            let whole = input.rows == need;
            let slice = if whole { None } else { Some(self.backend.slice(&input.tensor, part..part + need.len())?) };
            cut.push((slice, &input.tensor));
        }
        let inputs: Vec<&B::Tensor> = cut.iter().map(|(slice, whole)| slice.as_ref().unwrap_or(whole)).collect();
        let weights: Vec<&B::Weight> = self.site_weights[index].iter().map(|weight| &self.weights[*weight]).collect();
        let part = Batch { tokens: &batch.tokens[need.clone()], first_position: batch.first_position + need.start };
        self.backend.execute(site, &inputs, &weights, part)
    }

    /// Shows the wanted rows among those that were made, piece by piece.
    fn show(
        &mut self,
        index: usize,
        made: &Held<B::Tensor>,
        wanted: &Wanted,
        first_position: usize,
        step: u32,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let site = &self.graph.sites[index];
        let mut start = wanted.rows.start.max(made.rows.start);
        let end = wanted.rows.end.min(made.rows.end);
        while start < end {
            // Statistics alone are small, whatever they are of.
            let piece = start..if wanted.values { piece_end(site, first_position, start..end) } else { end };
            let within = piece.start - made.rows.start..piece.end - made.rows.start;
            let captured = self.backend.capture(&made.tensor, within, wanted.values)?;
            observer.capture(step, site.id, first_position + piece.start, captured)?;
            start = piece.end;
        }
        Ok(())
    }

    /// Drops the tensors that site `index` was the last to read, but for the logits.
    fn release(&self, index: usize, held: &mut [Option<Held<B::Tensor>>]) {
        let last = held.len() - 1;
        let site = &self.graph.sites[index];
        for read in site.inputs.iter().map(|id| *id as usize).chain([index]) {
            if read != last && self.last_readers[read] == index {
                held[read] = None;
            }
        }
    }
}

/// As many of `rows` from the first on as fit a piece, at least one; `first_position` is that of row 0.
fn piece_end(site: &Site, first_position: usize, rows: Range<usize>) -> usize {
    let bytes = |row: usize| match site.axes {
        RowAxes::Keys { heads, window } => {
            let keys = (first_position + row + 1).min(window.map_or(usize::MAX, |window| window as usize));
            heads as usize * keys * size_of::<f32>()
        }
        flat => flat.width().unwrap_or(0) as usize * size_of::<f32>(),
    };
    let mut total = 0;
    for row in rows.clone() {
        total += bytes(row);
        if total > PIECE_BYTES && row > rows.start {
            return row;
        }
    }
    rows.end
}

fn lost(site: &Site) -> Error {
    Error::internal(format!("an input of `{}` was dropped before it was read", site.point))
}
