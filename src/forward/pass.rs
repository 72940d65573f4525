//! One batch through the graph.

use super::needs::needs;
use super::{Forward, Observer};
use crate::backend::{Backend, Batch};
use crate::error::{Error, Result};
use crate::graph::{Graph, Site};
use std::ops::Range;

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
    /// Evaluates `batch` and shows the observer what it wants. With `choose`, yields the logits of the last row.
    pub(super) fn pass(
        &mut self,
        batch: Batch<'_>,
        step: u32,
        choose: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Vec<f32>>> {
        let rows = batch.tokens.len();
        let positions = batch.first_position..batch.first_position + rows;
        let sites = self.graph.sites.iter();
        let wanted: Vec<Range<usize>> = sites
            .map(|site| {
                let wanted = observer.wants(site.id, positions.clone()).unwrap_or(0..0);
                wanted.start.min(rows)..wanted.end.min(rows)
            })
            .collect();
        let needs = needs(&self.graph, wanted.clone(), rows, choose)?;
        let mut held: Vec<Option<Held<B::Tensor>>> = self.graph.sites.iter().map(|_| None).collect();
        for index in 0..self.graph.sites.len() {
            let need = needs[index].clone();
            if !need.is_empty() {
                let tensor = self.run_site(index, &held, need.clone(), batch)?;
                held[index] = Some(Held { tensor, rows: need });
            }
            self.show(index, &held, wanted[index].clone(), batch.first_position, step, observer)?;
            self.release(index, &mut held);
        }
        if !choose {
            return Ok(None);
        }
        let logits = held.last().and_then(Option::as_ref).ok_or_else(|| Error::internal("a graph without logits"))?;
        let last = logits.rows.len().saturating_sub(1);
        let row = self.backend.fetch(&logits.tensor, last..logits.rows.len())?;
        Ok(Some(row.values().to_vec()))
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

    fn show(
        &self,
        index: usize,
        held: &[Option<Held<B::Tensor>>],
        wanted: Range<usize>,
        first_position: usize,
        step: u32,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (Some(held), false) = (&held[index], wanted.is_empty()) else {
            return Ok(());
        };
        let within = wanted.start - held.rows.start..wanted.end - held.rows.start;
        let rows = self.backend.fetch(&held.tensor, within)?;
        observer.capture(step, self.graph.sites[index].id, first_position + wanted.start, rows)
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

fn lost(site: &Site) -> Error {
    Error::internal(format!("an input of `{}` was dropped before it was read", site.point))
}
