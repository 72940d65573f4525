//! A backend around a backend that makes one fault in one place.

use actrace::audit::Class;
use actrace::backend::{Backend, BackendIdentity, Batch, Captured, Choice, CpuBackend, CpuWeight};
use actrace::graph::{Operation, Site};
use actrace::model::{Layout, Weight};
use actrace::tensor::{Extent, Rows};
use actrace::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// What goes wrong at the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A square weight is read with rows and columns exchanged.
    TransposedWeight,
    /// The bias is not added.
    MissingBias,
    /// The buffer still holds the same point of the layer before.
    StaleBuffer,
    /// The position is off by one.
    WrongPosition,
    /// The backend has no kernel for the operation.
    NoKernel,
}

/// Delegates everything but the fault.
pub struct Planted<B: Backend> {
    pub inner: B,
    pub fault: Fault,
    pub layer: u32,
    pub point: &'static str,
    /// The tensor that the point had in the layer before.
    pub before: Option<B::Tensor>,
}

impl<B: Backend> Planted<B> {
    pub fn new(inner: B, fault: Fault, layer: u32, point: &'static str) -> Self {
        Planted { inner, fault, layer, point, before: None }
    }
}

impl<B: Backend> Backend for Planted<B> {
    type Tensor = B::Tensor;
    type Weight = B::Weight;

    fn identity(&self) -> BackendIdentity {
        self.inner.identity()
    }
    fn rows_stand_alone(&self) -> bool {
        self.inner.rows_stand_alone()
    }
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }
    fn check(&self, site: &Site) -> Result<()> {
        let here = site.layer == Some(self.layer) && site.point == self.point;
        match self.fault {
            Fault::NoKernel if here => Err(Error::unsupported(format!("no kernel for {}", site.operation.name()))),
            _ => self.inner.check(site),
        }
    }
    fn load(&mut self, weight: &Weight) -> Result<B::Weight> {
        assert_ne!(self.fault, Fault::NoKernel, "a weight was loaded for a model that cannot run");
        let here = weight.key.layer == Some(self.layer) && weight.key.role.name() == self.point;
        if self.fault != Fault::TransposedWeight || !here {
            return self.inner.load(weight);
        }
        assert_eq!(weight.rows, weight.columns, "only a square weight can be exchanged unnoticed");
        let mut transposed = weight.clone();
        transposed.layout = match weight.layout {
            Layout::Columns { first: 0, .. } => Layout::Rows { first: 0 },
            _ => Layout::Columns { first: 0, stored_columns: weight.columns },
        };
        self.inner.load(&transposed)
    }
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        // One position more than the run has, for the position that is off by one.
        self.inner.reset_cache(sites, positions + 1)
    }
    fn begin(&mut self, batch: Batch<'_>) -> Result<()> {
        self.inner.begin(batch)
    }
    fn execute(
        &mut self,
        site: &Site,
        inputs: &[&B::Tensor],
        weights: &[&B::Weight],
        batch: Batch<'_>,
    ) -> Result<B::Tensor> {
        let here = site.layer == Some(self.layer) && site.point == self.point;
        match self.fault {
            Fault::MissingBias if here => {
                assert_eq!(site.operation, Operation::Bias);
                let identity = Site { operation: Operation::Identity, ..site.clone() };
                self.inner.execute(&identity, inputs, &[], batch)
            }
            Fault::WrongPosition if here => {
                let batch = Batch { first_position: batch.first_position + 1, ..batch };
                self.inner.execute(site, inputs, weights, batch)
            }
            Fault::StaleBuffer if site.point == self.point => {
                let made = self.inner.execute(site, inputs, weights, batch)?;
                match self.before.replace(made.clone()) {
                    Some(before) if here => Ok(before),
                    _ => Ok(made),
                }
            }
            _ => self.inner.execute(site, inputs, weights, batch),
        }
    }
    fn slice(&self, tensor: &B::Tensor, rows: Range<usize>) -> Result<B::Tensor> {
        self.inner.slice(tensor, rows)
    }
    fn capture(&mut self, tensor: &B::Tensor, rows: Range<usize>, values: bool) -> Result<Captured> {
        self.inner.capture(tensor, rows, values)
    }
    fn choose(&mut self, logits: &B::Tensor) -> Result<Choice> {
        self.inner.choose(logits)
    }
}

/// The faults, each with the place where it is planted: all of them in tiny-qwen2.
pub const FAULTS: [(Fault, u32, &str); 4] = [
    (Fault::TransposedWeight, 3, "q"),
    (Fault::MissingBias, 2, "k"),
    (Fault::StaleBuffer, 4, "ffn_up"),
    (Fault::WrongPosition, 1, "q_rope"),
];

/// What goes wrong with the rows of one operation on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// What is added to the residual stream is added twice.
    AddedTwice,
    /// The last key gets no probability.
    LastKeyDropped,
    /// The first key is masked.
    WrongMask,
    /// Rows are stored one position late.
    CacheOffByOne,
    /// One element of each row is half as large again.
    DamagedChannel,
    /// The row of one position is zero.
    LostRow,
    /// Two heads are exchanged.
    ExchangedHeads,
    /// An element is not a number.
    NotANumber,
    /// The row of one position is larger by 2e-5: of all rows that is below 1e-5.
    SlightlyOff,
}

impl RowFault {
    /// Each with where it is planted and the class that it belongs to.
    pub const ALL: [(RowFault, u32, &'static str, Class); 10] = [
        (RowFault::AddedTwice, 2, "resid_mid", Class::Kernel),
        (RowFault::LastKeyDropped, 0, "attn_probs", Class::Kernel),
        (RowFault::WrongMask, 5, "attn_scores", Class::Kernel),
        (RowFault::CacheOffByOne, 3, "attn_scores", Class::Cache),
        (RowFault::CacheOffByOne, 1, "attn_ctx", Class::Cache),
        (RowFault::DamagedChannel, 4, "ffn_out", Class::Kernel),
        (RowFault::LostRow, 0, "ffn_gate", Class::Kernel),
        (RowFault::ExchangedHeads, 1, "attn_ctx", Class::Kernel),
        (RowFault::NotANumber, 3, "ffn_act", Class::Kernel),
        (RowFault::SlightlyOff, 2, "attn_ctx", Class::Kernel),
    ];
}

/// The processor with a fault in the rows of one operation.
pub struct PlantedRows {
    inner: CpuBackend,
    fault: RowFault,
    layer: u32,
    point: &'static str,
    /// The last row that was stored: it is stored again.
    stored: Vec<f32>,
}

impl PlantedRows {
    pub fn new(inner: CpuBackend, fault: RowFault, layer: u32, point: &'static str) -> Self {
        PlantedRows { inner, fault, layer, point, stored: Vec::new() }
    }

    /// Each row where the one before it belongs.
    fn late(&mut self, rows: &Rows) -> Rows {
        let width = rows.width().unwrap();
        let mut values = if self.stored.is_empty() { rows.row(0).to_vec() } else { self.stored.clone() };
        values.extend_from_slice(rows.values());
        self.stored = values.split_off(values.len() - width);
        Rows::new(Arc::new(values), Extent::Width(width), rows.len()).unwrap()
    }

    fn broken(&self, site: &Site, inputs: &[&Rows], made: &Rows, batch: Batch<'_>) -> Rows {
        let mut offsets = vec![0];
        let mut values = Vec::new();
        for row in 0..made.len() {
            let mut broken = made.row(row).to_vec();
            let keys = broken.len() / 4;
            match self.fault {
                RowFault::AddedTwice => broken.iter_mut().zip(inputs[1].row(row)).for_each(|(x, twice)| *x += twice),
                RowFault::LastKeyDropped => broken.chunks_mut(keys).for_each(|head| {
                    head[keys - 1] = 0.0;
                    let sum: f32 = head.iter().sum();
                    head.iter_mut().for_each(|p| *p /= sum.max(f32::MIN_POSITIVE));
                }),
                RowFault::WrongMask => broken.chunks_mut(keys).for_each(|head| head[0] = -1e9),
                RowFault::DamagedChannel => broken[7] *= 1.5,
                RowFault::LostRow if batch.first_position + row == 5 => broken.fill(0.0),
                RowFault::ExchangedHeads => broken.rotate_left(keys),
                RowFault::SlightlyOff if batch.first_position + row == 5 => {
                    broken.iter_mut().for_each(|x| *x *= 1.000_02);
                }
                RowFault::NotANumber if batch.first_position + row == 5 => broken[1] = f32::NAN,
                _ => {}
            }
            values.extend(broken);
            offsets.push(values.len());
        }
        let extent = site.axes.width().map_or(Extent::Offsets(offsets.into()), |width| Extent::Width(width as usize));
        Rows::new(Arc::new(values), extent, made.len()).unwrap()
    }
}

impl Backend for PlantedRows {
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
    fn load(&mut self, weight: &Weight) -> Result<CpuWeight> {
        self.inner.load(weight)
    }
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.inner.reset_cache(sites, positions)
    }
    fn begin(&mut self, batch: Batch<'_>) -> Result<()> {
        self.inner.begin(batch)
    }
    fn execute(&mut self, site: &Site, inputs: &[&Rows], weights: &[&CpuWeight], batch: Batch<'_>) -> Result<Rows> {
        let layer = site.layer == Some(self.layer);
        let cache = if self.point == "attn_ctx" { "v_cache" } else { "k_cache" };
        if self.fault == RowFault::CacheOffByOne && layer && site.point == cache {
            let late = self.late(inputs[0]);
            self.inner.execute(site, &[&late], weights, batch)?;
            return Ok(inputs[0].clone());
        }
        let made = self.inner.execute(site, inputs, weights, batch)?;
        Ok(if layer && site.point == self.point { self.broken(site, inputs, &made, batch) } else { made })
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
