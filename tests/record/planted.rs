//! A backend around a backend that makes one fault in one place.

use crate::tampering::{Tampered, Tampering};
use actrace::audit::Class;
use actrace::backend::{Backend, BackendIdentity, Batch, Captured, Choice, CpuBackend};
use actrace::graph::{Operation, Site};
use actrace::model::{Layout, Weight};
use actrace::{Error, Result};
use std::ops::Range;

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

impl RowFault {
    /// The processor with this fault in the rows of `point`.
    pub fn planted(self, inner: CpuBackend, layer: u32, point: &'static str) -> Tampered {
        let place = match (self, point) {
            (RowFault::CacheOffByOne, "attn_ctx") => "v_cache",
            (RowFault::CacheOffByOne, _) => "k_cache",
            _ => point,
        };
        Tampered::new(inner, &[(self.tampering(), (Some(layer), place))])
    }

    fn tampering(self) -> Tampering {
        match self {
            RowFault::AddedTwice => Tampering::Rows(|made| {
                let twice = made.inputs[1];
                made.row.iter_mut().zip(twice).for_each(|(x, twice)| *x += twice);
            }),
            RowFault::LastKeyDropped => Tampering::Rows(|made| {
                for head in 0..made.heads {
                    let head = made.head(head);
                    *head.last_mut().unwrap() = 0.0;
                    let sum: f32 = head.iter().sum();
                    head.iter_mut().for_each(|p| *p /= sum.max(f32::MIN_POSITIVE));
                }
            }),
            RowFault::WrongMask => Tampering::Rows(|made| {
                for head in 0..made.heads {
                    made.head(head)[0] = -1e9;
                }
            }),
            RowFault::CacheOffByOne => Tampering::CacheLate,
            RowFault::DamagedChannel => Tampering::Rows(|made| made.row[7] *= 1.5),
            RowFault::LostRow => Tampering::Rows(|made| {
                if made.position == 5 {
                    made.row.fill(0.0);
                }
            }),
            RowFault::ExchangedHeads => Tampering::Rows(|made| {
                let width = made.row.len() / made.heads;
                made.row.rotate_left(width);
            }),
            RowFault::NotANumber => Tampering::Rows(|made| {
                if made.position == 5 {
                    made.row[1] = f32::NAN;
                }
            }),
            RowFault::SlightlyOff => Tampering::Rows(|made| {
                if made.position == 5 {
                    made.row.iter_mut().for_each(|x| *x *= 1.000_02);
                }
            }),
        }
    }
}
