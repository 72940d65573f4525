//! A fault in one operation of one layer, planted by a backend around the backend.

use crate::running::{capture, open, place, prompt};
use actrace::Result;
use actrace::backend::{Backend, BackendIdentity, Batch, Captured, Choice, CpuBackend, CpuWeight, Semantics};
use actrace::forward::Forward;
use actrace::graph::Site;
use actrace::model::Weight;
use actrace::tensor::{Extent, Rows};
use std::ops::Range;
use std::sync::Arc;

/// Scales one element of one row at one site.
struct Faulty {
    inner: CpuBackend,
    layer: Option<u32>,
    point: &'static str,
    position: usize,
}

impl Backend for Faulty {
    type Tensor = Rows;
    type Weight = CpuWeight;

    fn identity(&self) -> BackendIdentity {
        self.inner.identity()
    }
    fn rows_stand_alone(&self) -> bool {
        self.inner.rows_stand_alone()
    }
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }
    fn begin(&mut self, batch: Batch<'_>) -> Result<()> {
        self.inner.begin(batch)
    }
    fn load(&mut self, weight: &Weight) -> Result<CpuWeight> {
        self.inner.load(weight)
    }
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.inner.reset_cache(sites, positions)
    }
    fn execute(&mut self, site: &Site, inputs: &[&Rows], weights: &[&CpuWeight], batch: Batch<'_>) -> Result<Rows> {
        let made = self.inner.execute(site, inputs, weights, batch)?;
        if (site.layer, site.point) != (self.layer, self.point) {
            return Ok(made);
        }
        let width = made.width().unwrap();
        let mut values = made.values().to_vec();
        values[(self.position - batch.first_position) * width + 5] *= 1.5;
        Ok(Rows::new(Arc::new(values), Extent::Width(width), made.len()).unwrap())
    }
    fn slice(&self, tensor: &Rows, rows: Range<usize>) -> Result<Rows> {
        self.inner.slice(tensor, rows)
    }
    fn capture(&mut self, tensor: &Rows, rows: Range<usize>, values: bool) -> Result<Captured> {
        self.inner.capture(tensor, rows, values)
    }
    fn choose(&mut self, logits: &Rows) -> Result<Choice> {
        self.inner.choose(logits)
    }
}

/// Everything before the fault is untouched, the fault is at its place, later tokens see it through attention.
#[test]
fn a_scaled_element_shows_from_its_place_on() {
    let model = open("tiny-qwen2.safetensors");
    let backend = || CpuBackend::new(Semantics::DequantizeF32, 2).unwrap();
    let (clean, expected) = capture(&mut Forward::new(&model, backend()).unwrap(), &prompt(), 0);
    let (layer, point, position) = (Some(2), "ffn_up", 4);
    let faulty = Faulty { inner: backend(), layer, point, position };
    let mut forward = Forward::new(&model, faulty).unwrap();
    let (faulty, changed) = capture(&mut forward, &prompt(), 0);
    let fault = forward.graph().site(layer, point).unwrap().id;
    for site in &forward.graph().sites {
        let rows = |run: &crate::running::Capture| run.rows[&(0, site.id)][0].clone();
        let (clean, faulty) = (rows(&clean), rows(&faulty));
        let differing: Vec<usize> = (0..clean.len()).filter(|row| clean.row(*row) != faulty.row(*row)).collect();
        if site.id < fault {
            assert_eq!(differing, [0usize; 0], "{}", place(site));
        } else if site.id == fault {
            assert_eq!(differing, [position], "{}", place(site));
        } else {
            assert!(differing.iter().all(|row| *row >= position), "{}", place(site));
        }
    }
    assert_ne!(changed.fingerprints, expected.fingerprints);
}
