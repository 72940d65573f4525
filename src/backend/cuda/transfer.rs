//! From the card to the host: page-locked slots, copies on a stream of their own, and rows that land on other threads.

use super::device::{Device, DeviceMemory, check};
use super::params::RowRecord;
use super::pinned::Pinned;
use super::tensor::CudaTensor;
use crate::backend::{Landed, Landing};
use crate::error::{Error, Result};
use crate::stats::{Extremes, Moments, RowStatistics};
use crate::tensor::{Extent, Rows, Values};
use cudarc::driver::CudaEvent;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Bytes of page-locked memory that copies may fill before the inference thread waits for the packers.
const RING_BYTES: usize = 384 << 20;
/// Sizes of slots that are kept for the next copy.
const KEPT: [usize; 3] = [64 << 10, 512 << 10, LARGEST];
/// A payload's bytes, and a little for the gaps between tensors that travel together.
const LARGEST: usize = (4 << 20) + (64 << 10);

/// Page-locked memory, lent slot by slot.
pub(super) struct Ring {
    device: Arc<Device>,
    state: Mutex<RingState>,
    freed: Condvar,
}

#[derive(Default)]
struct RingState {
    used: usize,
    free: [Vec<Pinned>; KEPT.len()],
}

impl Ring {
    pub(super) fn new(device: &Arc<Device>) -> Arc<Self> {
        let state = Mutex::new(RingState::default());
        Arc::new(Ring { device: Arc::clone(device), state, freed: Condvar::new() })
    }

    /// A slot of at least `bytes`. Waits until as much is free, or nothing else is lent.
    fn take(self: &Arc<Self>, bytes: usize) -> Result<Slot> {
        let class = KEPT.iter().position(|kept| bytes <= *kept);
        let size = class.map_or(bytes, |class| KEPT[class]);
        let full = |state: &mut RingState| state.used > 0 && state.used + size > RING_BYTES;
        let waited = self.freed.wait_while(self.state(), full);
        let mut state = waited.unwrap_or_else(|poison| poison.into_inner());
        let kept = class.and_then(|class| state.free[class].pop());
        state.used += size;
        drop(state);
        let pinned = match kept {
            Some(pinned) => Ok(pinned),
            None => Pinned::new(&self.device, size),
        };
        let pinned = pinned.inspect_err(|_| self.state().used -= size)?;
        Ok(Slot { pinned: Some(pinned), ring: Arc::clone(self) })
    }

    fn state(&self) -> MutexGuard<'_, RingState> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// A lent piece of page-locked memory; it goes back when it is dropped.
struct Slot {
    pinned: Option<Pinned>,
    ring: Arc<Ring>,
}

impl Slot {
    fn pinned(&self) -> Result<&Pinned> {
        self.pinned.as_ref().ok_or_else(|| Error::internal("a slot without memory"))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pinned) = self.pinned.take() else { return };
        let mut state = self.ring.state();
        state.used -= pinned.bytes();
        if let Some(class) = KEPT.iter().position(|kept| pinned.bytes() == *kept) {
            state.free[class].push(pinned);
        }
        drop(state);
        self.ring.freed.notify_all();
    }
}

/// A stretch of a slot.
#[derive(Clone)]
struct Stretch {
    slot: Arc<Slot>,
    offset: usize,
    count: usize,
}

impl Values for Stretch {
    fn values(&self) -> &[f32] {
        self.slot.pinned.as_ref().map_or(&[], |pinned| pinned.values(self.offset, self.count))
    }
}

/// Rows that were asked for and wait for the next shipment.
pub(super) struct Parked {
    pub(super) tensor: CudaTensor,
    pub(super) values: bool,
}

/// Where the statistics of some rows lie on the card.
pub(super) struct Measured {
    pub(super) memory: Arc<DeviceMemory>,
    pub(super) address: u64,
    pub(super) rows: usize,
}

/// One shipment: statistics and values of several captures, behind one event.
struct Parcel {
    event: Arc<CudaEvent>,
    /// Whether somebody has seen the copies through: the driver need not be asked for each of hundreds of captures.
    arrived: AtomicBool,
    statistics: Stretch,
    values: Vec<Option<Stretch>>,
    /// What the copies read.
    _sources: Vec<Arc<DeviceMemory>>,
}

impl Parcel {
    /// Waits until the copies are through.
    fn arrive(&self) -> Result<()> {
        if !self.arrived.load(Ordering::Acquire) {
            check("wait for a copy from the card", self.event.synchronize())?;
            self.arrived.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for Parcel {
    /// Slots and memory may be used again only when the copies are through.
    fn drop(&mut self) {
        // An error was or will be reported where the rows land.
        let _ = self.arrive();
    }
}

/// Where captures wait for their shipment.
#[derive(Default)]
pub(super) struct Delivery {
    state: Mutex<Option<Option<Arc<Parcel>>>>,
    sent: Condvar,
}

impl Delivery {
    fn publish(&self, parcel: Option<Arc<Parcel>>) {
        let mut state = self.state.lock().unwrap_or_else(|poison| poison.into_inner());
        if state.is_none() {
            *state = Some(parcel);
        }
        self.sent.notify_all();
    }

    /// Tells those who wait that nothing will come.
    pub(super) fn give_up(&self) {
        self.publish(None);
    }

    fn wait(&self) -> Result<Arc<Parcel>> {
        let state = self.state.lock().unwrap_or_else(|poison| poison.into_inner());
        let state = self.sent.wait_while(state, |state| state.is_none());
        let state = state.unwrap_or_else(|poison| poison.into_inner());
        let parcel = state.as_ref().and_then(Option::as_ref).map(Arc::clone);
        parcel.ok_or_else(|| Error::internal("the batch was given up before its rows were copied"))
    }
}

/// One capture, on its way.
pub(super) struct Arrival {
    pub(super) delivery: Arc<Delivery>,
    /// Number of the capture in its shipment.
    pub(super) number: usize,
    /// First of its rows among the shipment's statistics.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) extent: Extent,
    pub(super) held_bytes: usize,
}

impl Landing for Arrival {
    fn rows(&self) -> usize {
        self.rows
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn land(self: Box<Self>) -> Result<Landed> {
        let parcel = self.delivery.wait()?;
        parcel.arrive()?;
        let offset = parcel.statistics.offset + self.first * size_of::<RowRecord>();
        let records = parcel.statistics.slot.pinned()?.values::<RowRecord>(offset, self.rows);
        let statistics: Vec<RowStatistics> = records.iter().map(statistics).collect();
        if statistics.len() != self.rows {
            return Err(Error::internal("statistics of fewer rows than were captured arrived"));
        }
        let values = match parcel.values.get(self.number).cloned().flatten() {
            None => None,
            Some(stretch) => {
                let rows = Rows::new(Arc::new(stretch), self.extent, self.rows);
                Some(rows.ok_or_else(|| Error::internal("rows arrived in another shape than they were captured in"))?)
            }
        };
        Ok(Landed { statistics, values })
    }
}

/// Statistics as the device computed them, in the form of the host's.
fn statistics(record: &RowRecord) -> RowStatistics {
    let finite = record.count - record.nan - record.pos_inf - record.neg_inf;
    // Adding zero makes one zero of both.
    let min = (f64::from(record.min + 0.0), record.min_index);
    let max = (f64::from(record.max + 0.0), record.max_index);
    RowStatistics {
        count: record.count,
        nan: record.nan,
        pos_inf: record.pos_inf,
        neg_inf: record.neg_inf,
        zero: record.zero,
        subnormal: record.subnormal,
        extremes: (finite > 0).then(|| Extremes::of(min, max)),
        abs_smallest: (record.smallest < f32::INFINITY.to_bits() - 1)
            .then(|| f64::from(f32::from_bits(record.smallest + 1))),
        moments: Moments { count: u64::from(finite), mean: record.mean, m2: record.m2 },
        l1: record.l1,
        fingerprint: record.fingerprint,
    }
}

/// Copies the statistics of `measured` and the values of `parked` to the host, behind what the stream of statistics has so
/// far, and tells `delivery`. Returns the event behind the copies, with which the compute stream can wait.
pub(super) fn ship(
    device: &Device,
    ring: &Arc<Ring>,
    parked: Vec<Parked>,
    measured: Measured,
    delivery: &Delivery,
) -> Result<Arc<CudaEvent>> {
    let computed = device.event(&device.streams.statistics)?;
    check("order two streams", device.streams.copy.wait(&computed))?;
    let Measured { memory, address, rows } = measured;
    let bytes = rows * size_of::<RowRecord>();
    let slot = Arc::new(ring.take(bytes)?);
    device.download(&device.streams.copy, address, slot.pinned()?.target(0, bytes)?)?;
    let statistics = Stretch { slot, offset: 0, count: rows };
    let values = download_values(device, ring, &parked)?;
    let mut sources: Vec<Arc<DeviceMemory>> =
        parked.into_iter().map(|parked| Arc::clone(parked.tensor.memory())).collect();
    sources.push(memory);
    let event = Arc::new(device.event(&device.streams.copy)?);
    let parcel =
        Parcel { event: Arc::clone(&event), arrived: AtomicBool::new(false), statistics, values, _sources: sources };
    delivery.publish(Some(Arc::new(parcel)));
    Ok(event)
}

/// Starts copies of all values that are asked for. Tensors that lie side by side travel together.
fn download_values(device: &Device, ring: &Arc<Ring>, parked: &[Parked]) -> Result<Vec<Option<Stretch>>> {
    /// A gap that is cheaper to copy than to leave out.
    const GAP: u64 = 4096;
    let mut order: Vec<usize> = (0..parked.len()).filter(|number| parked[*number].values).collect();
    order.sort_by_key(|number| parked[*number].tensor.address());
    let bytes = |tensor: &CudaTensor| (tensor.elements() * size_of::<f32>()) as u64;
    let mut stretches = vec![None; parked.len()];
    // What is left to copy, gaps and all, so that a few small tensors take a small slot.
    let mut left: u64 = order.iter().map(|number| bytes(&parked[*number].tensor) + GAP).sum();
    let mut next = 0;
    let mut open: Option<(Arc<Slot>, usize)> = None;
    while next < order.len() {
        let start = parked[order[next]].tensor.address();
        let mut end = start + bytes(&parked[order[next]].tensor);
        let mut last = next + 1;
        while let Some(tensor) = order.get(last).map(|number| &parked[*number].tensor) {
            let extended = end.max(tensor.address() + bytes(tensor));
            let whole = Arc::ptr_eq(tensor.memory(), parked[order[next]].tensor.memory());
            if !whole || tensor.address() > end + GAP || extended - start > LARGEST as u64 {
                break;
            }
            (end, last) = (extended, last + 1);
        }
        let length = usize::try_from(end - start).map_err(|_| Error::internal("a tensor larger than memory"))?;
        let (slot, offset) = match open.take() {
            Some((slot, used)) if used + length <= slot.pinned()?.bytes() => (slot, used),
            _ => (Arc::new(ring.take(length.max(LARGEST.min(left as usize)))?), 0),
        };
        device.download(&device.streams.copy, start, slot.pinned()?.target(offset, length)?)?;
        for number in &order[next..last] {
            let tensor = &parked[*number].tensor;
            let within = usize::try_from(tensor.address() - start).unwrap_or(0);
            stretches[*number] =
                Some(Stretch { slot: Arc::clone(&slot), offset: offset + within, count: tensor.elements() });
        }
        left -= order[next..last].iter().map(|number| bytes(&parked[*number].tensor) + GAP).sum::<u64>();
        open = Some((slot, (offset + length).next_multiple_of(64)));
        next = last;
    }
    Ok(stretches)
}
