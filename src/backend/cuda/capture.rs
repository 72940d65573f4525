//! Captures of a batch: parked until their layer is through, then their statistics are computed in one launch and
//! everything leaves in one shipment.

use super::count;
use super::device::{Device, DeviceMemory};
use super::memory::Memory;
use super::params::{RowRecord, Statistics, StatisticsEntry};
use super::queue::Queue;
use super::tensor::{CudaTensor, Shape};
use super::transfer::{Arrival, Delivery, Parked, Ring, ship};
use super::work::Work;
use crate::backend::Captured;
use crate::error::Result;
use cudarc::driver::CudaEvent;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of values that may be parked: with what the recorder lets through, they have to leave before it waits.
const MOST_VALUES: usize = 64 << 20;
/// Bytes of tensors on the card that may be kept only because their statistics are not computed yet.
const MOST_KEPT: usize = 1 << 30;
/// Elements of a row that one warp takes: of many rows all but the longest go whole, of few as many warps as there are
/// should have something to do.
const UNIT: usize = 8192;
const UNIT_OF_FEW: usize = 1024;

/// What was asked for since the last shipment.
pub(super) struct Captures {
    ring: Arc<Ring>,
    parked: Vec<Parked>,
    rows: usize,
    values: usize,
    kept: usize,
    delivery: Arc<Delivery>,
    /// Tables that lie in arenas, by address.
    tables: HashMap<u64, Vec<StatisticsEntry>>,
}

impl Captures {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        Captures {
            ring: Ring::new(device),
            parked: Vec::new(),
            rows: 0,
            values: 0,
            kept: 0,
            delivery: Arc::default(),
            tables: HashMap::new(),
        }
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
    pub(super) fn statistics(
        &mut self,
        device: &Device,
        memory: &mut Memory,
        step: u64,
        queue: &mut Queue,
    ) -> Result<Source> {
        let unit = if memory.repeats() { UNIT_OF_FEW } else { UNIT };
        let out = memory.take(self.rows * size_of::<RowRecord>(), "statistics")?;
        let mut entries = Vec::with_capacity(self.parked.len());
        let (mut units, mut first, mut several) = (0, 0, false);
        for Parked { tensor, .. } in &self.parked {
            let entry = entry_of(tensor, unit, units, first)?;
            units += entry.units * entry.rows;
            several |= entry.units > 1;
            first += tensor.rows;
            entries.push(entry);
        }
        let table = memory.take(entries.len() * size_of::<StatisticsEntry>(), "statistics")?;
        self.upload(device, memory, &table, entries)?;
        let partials = if several { units as usize * size_of::<RowRecord>() } else { 0 };
        let partials = memory.take(partials, "statistics")?;
        let count = count(self.parked.len())?;
        let params = Statistics {
            step,
            partials: partials.1,
            out: out.1,
            entries: table.1,
            count,
            unit: unit as u32,
            units,
            unused: 0,
        };
        queue.push(Work::Statistics(params));
        if several {
            queue.push(Work::StatisticsMerge(params));
        }
        Ok(Source { memory: out.0, address: out.1, _read: [table.0, partials.0] })
    }

    /// Brings a table to the card, unless the step before the last left the same one at the same address.
    fn upload(
        &mut self,
        device: &Device,
        memory: &Memory,
        table: &(Arc<DeviceMemory>, u64),
        entries: Vec<StatisticsEntry>,
    ) -> Result<()> {
        if memory.repeats() && self.tables.get(&table.1) == Some(&entries) {
            return Ok(());
        }
        let bytes: Vec<u8> = entries.iter().flat_map(StatisticsEntry::bytes).collect();
        let offset = usize::try_from(table.1 - table.0.address()).unwrap_or(usize::MAX);
        device.upload(&table.0, offset, &bytes)?;
        if memory.repeats() {
            self.tables.insert(table.1, entries);
        }
        Ok(())
    }

    /// Forgets the tables on the card.
    pub(super) fn forget(&mut self) {
        self.tables.clear();
    }

    /// Sends everything parked to the host; returns the event behind the copies.
    pub(super) fn ship(&mut self, device: &Device, source: Source) -> Result<Arc<CudaEvent>> {
        let parked = std::mem::take(&mut self.parked);
        let delivery = std::mem::take(&mut self.delivery);
        let statistics = (source.memory, source.address, std::mem::take(&mut self.rows));
        (self.values, self.kept) = (0, 0);
        ship(device, &self.ring, parked, statistics, &delivery).inspect_err(|_| delivery.give_up())
    }

    /// Drops what is parked; whoever waits for it is told.
    pub(super) fn give_up(&mut self) {
        std::mem::take(&mut self.delivery).give_up();
        self.parked.clear();
        (self.rows, self.values, self.kept) = (0, 0, 0);
    }
}

/// Where statistics lie on the card.
pub(super) struct Source {
    memory: Arc<DeviceMemory>,
    address: u64,
    /// What the launches read, which are not made yet: memory that is freed now could be another backend's by then.
    _read: [Arc<DeviceMemory>; 2],
}

fn entry_of(tensor: &CudaTensor, unit: usize, first_unit: u32, first_row: usize) -> Result<StatisticsEntry> {
    let (width, heads, window) = match tensor.shape {
        Shape::Width(width) => (count(width)?, 0, 0),
        Shape::Keys { heads, window } => (0, count(heads)?, window),
    };
    Ok(StatisticsEntry {
        x: tensor.address(),
        rows: count(tensor.rows)?,
        width,
        heads,
        first_row: tensor.first_row,
        units: count(tensor.longest().div_ceil(unit).max(1))?,
        first_unit,
        out_row: count(first_row)?,
        window,
    })
}
