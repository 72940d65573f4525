//! Captures of a batch: parked until their layer is through, then their statistics are computed beside the layers that
//! follow, and everything leaves in one shipment.

use super::count;
use super::device::Device;
use super::memory::Memory;
use super::params::{MOST_STATISTICS, RowRecord, Statistics, StatisticsEntry};
use super::tensor::{CudaTensor, Shape};
use super::transfer::{Arrival, Delivery, Measured, Parked, Ring, ship};
use super::work::{STATISTICS_WARPS, Work};
use crate::backend::Captured;
use crate::error::Result;
use cudarc::driver::CudaEvent;
use std::sync::Arc;

/// Bytes of values that may be parked: with what the recorder lets through, they have to leave before it waits.
const MOST_VALUES: usize = 64 << 20;
/// Bytes of tensors on the card that may be kept only because their statistics are not computed yet.
const MOST_KEPT: usize = 1 << 30;
/// Elements of a row that a warp is worth: of many rows so many that what warps cost together is little, of few as many
/// warps as there are should have something to do.
const UNIT: usize = 2048;
const UNIT_OF_FEW: usize = 512;

/// What was asked for since the last shipment.
pub(super) struct Captures {
    ring: Arc<Ring>,
    parked: Vec<Parked>,
    rows: usize,
    values: usize,
    kept: usize,
    delivery: Arc<Delivery>,
}

impl Captures {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        Captures { ring: Ring::new(device), parked: Vec::new(), rows: 0, values: 0, kept: 0, delivery: Arc::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Whether these rows should not wait beside those that are parked.
    pub(super) fn crowds(&self, bytes: usize, values: bool) -> bool {
        (values && self.values + bytes > MOST_VALUES) || self.kept + bytes > MOST_KEPT
    }

    /// Parks `tensor` for the next shipment.
    pub(super) fn park(&mut self, tensor: CudaTensor, values: bool) -> Captured {
        let bytes = tensor.elements() * size_of::<f32>();
        let arrival = Arrival {
            delivery: Arc::clone(&self.delivery),
            number: self.parked.len(),
            first: self.rows,
            rows: tensor.rows,
            extent: tensor.extent(),
            held_bytes: tensor.rows * size_of::<RowRecord>() + if values { bytes } else { 0 },
        };
        self.rows += tensor.rows;
        self.kept += bytes;
        self.values += if values { bytes } else { 0 };
        self.parked.push(Parked { tensor, values });
        Captured::Device(Box::new(arrival))
    }

    /// The launches that compute the statistics of everything parked, and where they put them.
    pub(super) fn statistics(&self, memory: &mut Memory) -> Result<(Vec<Work>, Measured)> {
        let unit = if memory.repeats() { UNIT_OF_FEW } else { UNIT };
        let (memory, out) = memory.take(self.rows * size_of::<RowRecord>(), || "statistics".to_owned())?;
        let (mut works, mut first_row) = (Vec::new(), 0);
        for parked in self.parked.chunks(MOST_STATISTICS) {
            let entries = [StatisticsEntry::default(); MOST_STATISTICS];
            let mut params = Box::new(Statistics { out, entries, count: 0, unused: 0 });
            for (entry, Parked { tensor, .. }) in params.entries.iter_mut().zip(parked) {
                *entry = entry_of(tensor, unit, first_row)?;
                first_row += tensor.rows;
            }
            params.count = count(parked.len())?;
            params.place_blocks();
            works.push(Work::Statistics(params));
        }
        Ok((works, Measured { memory, address: out, rows: self.rows }))
    }

    /// Sends everything parked to the host, with its statistics; returns the event behind the copies.
    pub(super) fn ship(&mut self, device: &Device, measured: Measured) -> Result<Arc<CudaEvent>> {
        let parked = std::mem::take(&mut self.parked);
        let delivery = std::mem::take(&mut self.delivery);
        (self.rows, self.values, self.kept) = (0, 0, 0);
        ship(device, &self.ring, parked, measured, &delivery).inspect_err(|_| {
            // Statistics may still be written to what is given back now. The first error is the one to report.
            let _ = device.streams.statistics.synchronize();
            delivery.give_up();
        })
    }

    /// Drops what is parked; whoever waits for it is told.
    pub(super) fn give_up(&mut self) {
        std::mem::take(&mut self.delivery).give_up();
        self.parked.clear();
        (self.rows, self.values, self.kept) = (0, 0, 0);
    }
}

fn entry_of(tensor: &CudaTensor, unit: usize, out_row: usize) -> Result<StatisticsEntry> {
    let (width, heads, window) = match tensor.shape {
        Shape::Width(width) => (count(width)?, 0, 0),
        Shape::Keys { heads, window } => (0, count(heads)?, window),
    };
    Ok(StatisticsEntry {
        x: tensor.address(),
        rows: count(tensor.rows)?,
        width,
        heads,
        first_position: count(tensor.first_position)?,
        first_block: 0,
        out_row: count(out_row)?,
        window,
        warps: count(tensor.longest().div_ceil(unit))?.clamp(1, STATISTICS_WARPS).next_power_of_two(),
    })
}
