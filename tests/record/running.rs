//! Runs with everything captured in memory.

use crate::support::{fixture, model};
use actrace::backend::{Backend, Captured, CpuBackend, Semantics};
use actrace::forward::{Forward, Generation, Observer, Request, StepReport, Wanted};
use actrace::graph::{Graph, Site, SiteId};
use actrace::model::Model;
use actrace::stats::RowStatistics;
use actrace::tensor::{Extent, Rows};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The shipped prompt's token ids.
pub fn prompt() -> Vec<u32> {
    ids(&json("reference/prompt.json")["token_ids"])
}

pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

pub fn ids(list: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(list.clone()).unwrap()
}

pub fn open(name: &str) -> Model {
    Model::open(&model(name)).unwrap()
}

pub fn forward(model: &Model, semantics: Semantics) -> Forward<CpuBackend> {
    Forward::new(model, CpuBackend::new(semantics, 2).unwrap()).unwrap()
}

/// Sees nothing.
pub struct Blind;

impl Observer for Blind {
    fn wants(&mut self, _: SiteId, _: Range<usize>) -> Option<Wanted> {
        None
    }
    fn capture(&mut self, _: u32, _: SiteId, _: usize, _: Captured) -> actrace::Result<()> {
        panic!("nothing was wanted")
    }
    fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
        Ok(())
    }
}

/// Keeps every tensor of every step.
#[derive(Default)]
pub struct Capture {
    /// What the step under way captured: it may not have arrived before the step is complete.
    under_way: Vec<(u32, SiteId, usize, Captured)>,
    pub rows: BTreeMap<(u32, SiteId), Vec<Rows>>,
    /// The device's own statistics, or the host's.
    pub statistics: BTreeMap<(u32, SiteId), Vec<RowStatistics>>,
    pub reports: Vec<StepReport>,
}

impl Capture {
    /// All values of a site in a step, row after row.
    pub fn values(&self, step: u32, site: SiteId) -> Vec<f32> {
        self.rows[&(step, site)].iter().flat_map(|rows| rows.values().to_vec()).collect()
    }
}

impl Observer for Capture {
    fn wants(&mut self, _: SiteId, positions: Range<usize>) -> Option<Wanted> {
        Some(Wanted { rows: 0..positions.len(), values: true })
    }
    fn capture(&mut self, step: u32, site: SiteId, first: usize, rows: Captured) -> actrace::Result<()> {
        self.under_way.push((step, site, first, rows));
        Ok(())
    }
    fn step(&mut self, report: &StepReport) -> actrace::Result<()> {
        assert_eq!(report.step as usize, self.reports.len());
        for (step, site, first, rows) in self.under_way.drain(..) {
            let landed = rows.land()?;
            let held = self.rows.entry((step, site)).or_default();
            let before: usize = held.iter().map(Rows::len).sum();
            assert!(step > 0 || before == first, "prefill rows come in order of their positions");
            held.push(owned(&landed.values.expect("values were asked for")));
            self.statistics.entry((step, site)).or_default().extend(landed.statistics);
        }
        self.reports.push(report.clone());
        Ok(())
    }
}

/// A copy: a card's page-locked memory is not held for as long as a test likes.
fn owned(rows: &Rows) -> Rows {
    let mut offsets = vec![0];
    offsets.extend((0..rows.len()).scan(0, |end, row| {
        *end += rows.row(row).len();
        Some(*end)
    }));
    let extent = rows.width().map_or(Extent::Offsets(offsets.into()), Extent::Width);
    Rows::new(Arc::new(rows.values().to_vec()), extent, rows.len()).unwrap()
}

/// Runs with everything captured.
pub fn capture<B: Backend>(forward: &mut Forward<B>, tokens: &[u32], generate: usize) -> (Capture, Generation) {
    let mut capture = Capture::default();
    let generation = forward.generate(&Request { tokens, generate, stop_at: &[] }, &mut capture).unwrap();
    (capture, generation)
}

/// Runs with nothing captured.
pub fn untraced<B: Backend>(forward: &mut Forward<B>, tokens: &[u32], generate: usize) -> Generation {
    forward.generate(&Request { tokens, generate, stop_at: &[] }, &mut Blind).unwrap()
}

/// A site's place in words: `layers.3.ffn_out`, `logits`.
pub fn place(site: &Site) -> String {
    site.layer.map_or_else(|| site.point.to_owned(), |layer| format!("layers.{layer}.{}", site.point))
}

pub fn site<'a>(graph: &'a Graph, layer: Option<u32>, point: &str) -> &'a Site {
    graph.site(layer, point).unwrap_or_else(|| panic!("no {point} in layer {layer:?}"))
}
