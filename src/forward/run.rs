//! A run: chunked prefill, then greedy decode.

use super::pass::last_readers;
use super::{Observer, Phase, StepReport};
use crate::backend::{Backend, BackendIdentity, Batch};
use crate::error::{Error, Result};
use crate::graph::{Graph, RowAxes};
use crate::model::{Layout, Model, Weight};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

/// A model on a backend, ready to run.
#[derive(Debug)]
pub struct Forward<B: Backend> {
    pub(super) graph: Graph,
    pub(super) backend: B,
    pub(super) weights: Vec<B::Weight>,
    /// For every site the indices of its weights.
    pub(super) site_weights: Vec<Vec<usize>>,
    pub(super) last_readers: Vec<usize>,
    vocabulary: usize,
    context: usize,
    chunk_bytes: usize,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompt.
    pub tokens: &'a [u32],
    /// Tokens to generate: the prefill yields the first, every further one takes a decode step. 0 and 1 are the
    /// prefill alone.
    pub generate: usize,
    /// Token ids after which generation ends; empty to go on.
    pub stop_at: &'a [u32],
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The generated tokens, at most as many as were asked for; a stop token is the last.
    pub tokens: Vec<u32>,
    /// The logits fingerprint of every step.
    pub fingerprints: Vec<u64>,
}

impl<B: Backend> Forward<B> {
    /// Builds the model's graph and loads its weights; a weight that two roles share is loaded once.
    ///
    /// # Errors
    /// Those of [`Graph::of`] and of the backend.
    pub fn new(model: &Model, mut backend: B) -> Result<Self> {
        let graph = Graph::of(model)?;
        graph.sites.iter().try_for_each(|site| backend.check(site))?;
        let mut weights = Vec::new();
        let mut loaded: HashMap<Stored, usize> = HashMap::new();
        let mut site_weights = Vec::with_capacity(graph.sites.len());
        for site in &graph.sites {
            let mut indices = Vec::with_capacity(site.weights.len());
            for key in &site.weights {
                let weight = model.weight(*key)?;
                indices.push(match loaded.entry(stored(weight)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        weights.push(backend.load(weight)?);
                        *new.insert(weights.len() - 1)
                    }
                });
            }
            site_weights.push(indices);
        }
        let hyper = model.hyper();
        Ok(Forward {
            last_readers: last_readers(&graph),
            chunk_bytes: backend.chunk_bytes(),
            graph,
            backend,
            weights,
            site_weights,
            vocabulary: hyper.vocabulary as usize,
            context: hyper.context as usize,
        })
    }

    /// Chunks the prefill so that no tensor of a chunk has more than `bytes`, but for chunks of one token.
    #[must_use]
    pub fn with_chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// What runs it.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the backend says of itself.
    pub fn identity(&self) -> BackendIdentity {
        self.backend.identity()
    }

    /// Evaluates the prompt, then decodes greedily: the largest logit, ties to the lowest id, NaN never; if all
    /// are NaN, id 0, so that a broken model can still be recorded. Starts from an empty cache.
    ///
    /// # Errors
    /// Usage for an empty prompt, a token id outside the vocabulary and a run longer than the context; those of
    /// the backend and of the observer, which end the run.
    pub fn generate(&mut self, request: &Request<'_>, observer: &mut dyn Observer) -> Result<Generation> {
        self.check(request)?;
        let decoded = request.generate.saturating_sub(1);
        self.backend.reset_cache(&self.graph.sites, request.tokens.len() + decoded)?;
        let mut generation = Generation { tokens: Vec::new(), fingerprints: Vec::new() };
        let mut tokens = request.tokens.to_vec();
        let mut first_position = 0;
        for step in 0..=decoded {
            let phase = if step == 0 { Phase::Prefill } else { Phase::Decode };
            let report = self.step(step, phase, first_position, &tokens, observer)?;
            observer.step(&report)?;
            generation.fingerprints.push(report.logits_fingerprint);
            if request.generate > 0 {
                generation.tokens.push(report.next_token);
            }
            if request.stop_at.contains(&report.next_token) {
                break;
            }
            first_position += tokens.len();
            tokens = vec![report.next_token];
        }
        Ok(generation)
    }

    fn step(
        &mut self,
        step: usize,
        phase: Phase,
        first_position: usize,
        tokens: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<StepReport> {
        let start = Instant::now();
        let number = |n: usize| u32::try_from(n).map_err(|_| Error::usage("more than 2^32 positions in one run"));
        let mut done = 0;
        let mut choice = None;
        while done < tokens.len() {
            let rows = self.chunk(first_position + done).min(tokens.len() - done);
            let batch = Batch { tokens: &tokens[done..done + rows], first_position: first_position + done };
            done += rows;
            choice = self.pass(batch, number(step)?, done == tokens.len(), observer)?;
        }
        let choice = choice.ok_or_else(|| Error::internal("a step without a choice"))?;
        Ok(StepReport {
            step: number(step)?,
            phase,
            first_position: number(first_position)?,
            tokens: tokens.to_vec(),
            next_token: choice.token,
            logits_fingerprint: choice.fingerprint,
            elapsed: start.elapsed(),
        })
    }

    /// How many rows from `position` on keep every tensor within the budget; at least one.
    fn chunk(&self, position: usize) -> usize {
        let budget = self.chunk_bytes / size_of::<f32>();
        let rows = |axes: RowAxes| match axes {
            RowAxes::Keys { heads, window: Some(window) } if window as usize <= position => {
                budget as f64 / (f64::from(heads) * f64::from(window))
            }
            RowAxes::Keys { heads, .. } => {
                // n rows have at most heads * n * (position + n) elements: the positive root of that.
                let (heads, position) = (f64::from(heads), position as f64);
                ((position * position + 4.0 * budget as f64 / heads).sqrt() - position) / 2.0
            }
            flat => budget as f64 / f64::from(flat.width().unwrap_or(1)),
        };
        let fewest = self.graph.sites.iter().map(|site| rows(site.axes)).fold(f64::INFINITY, f64::min);
        (fewest as usize).max(1)
    }

    /// Whether the model can run `request`, asked before anything is written.
    ///
    /// # Errors
    /// Usage, as of [`Forward::generate`].
    pub fn check(&self, request: &Request<'_>) -> Result<()> {
        if request.tokens.is_empty() {
            return Err(Error::usage("the prompt is empty: give at least one token"));
        }
        let unknown = request.tokens.iter().enumerate().find(|(_, id)| **id as usize >= self.vocabulary);
        if let Some((position, id)) = unknown {
            return Err(Error::usage(format!(
                "token id {id} at position {position} is out of range: the vocabulary has {} tokens, 0 to {}",
                self.vocabulary,
                self.vocabulary.saturating_sub(1)
            )));
        }
        let length = request.tokens.len().saturating_add(request.generate);
        if length > self.context {
            return Err(Error::usage(format!(
                "{} prompt tokens and {} to generate exceed the model's context of {}: shorten one of them",
                request.tokens.len(),
                request.generate,
                self.context
            )));
        }
        Ok(())
    }
}

/// Where a weight is stored and in what shape: two roles may share one.
type Stored = (*const u8, usize, usize, Layout, bool);

fn stored(weight: &Weight) -> Stored {
    (weight.data.as_ptr(), weight.rows, weight.columns, weight.layout, weight.key.role.is_matrix())
}
