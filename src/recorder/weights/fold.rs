//! The record of a weight, folded from its pieces.

use super::piece::{Kept, Piece};
use crate::capture::weight_ref;
use crate::error::Result;
use crate::model::Weight;
use crate::record::WeightV1;
use crate::stats::{Extremes, Moments, RowStatistics};
use zerocopy::IntoBytes;

/// The record of a weight while its pieces come in order.
pub struct Fold {
    record: WeightV1,
    values: blake3::Hasher,
    moments: Moments,
    extremes: Option<Places>,
    smallest: Option<f64>,
}

/// Extremes with their index in the whole weight.
#[derive(Clone, Copy)]
struct Places {
    min: (f64, u64),
    max: (f64, u64),
    absmax: (f64, u64),
}

impl Places {
    fn of(extremes: &Extremes, first: u64) -> Self {
        let place = |(value, index): (f64, u32)| (value, first + u64::from(index));
        Places { min: place(extremes.min), max: place(extremes.max), absmax: place(extremes.absmax) }
    }

    /// The extremes of both; of equal ones the first.
    fn merge(self, later: Places) -> Self {
        Places {
            min: if later.min.0 < self.min.0 { later.min } else { self.min },
            max: if later.max.0 > self.max.0 { later.max } else { self.max },
            absmax: if later.absmax.0 > self.absmax.0 { later.absmax } else { self.absmax },
        }
    }
}

impl Fold {
    /// Nothing of `weight` yet, whose stored bytes have this hash.
    pub fn new(weight: &Weight, added: f32, stored_blake3: [u8; 32]) -> Self {
        let record = WeightV1 {
            weight: weight_ref(weight),
            added,
            stored_blake3,
            values_blake3: [0; 32],
            count: 0,
            nan: 0,
            pos_inf: 0,
            neg_inf: 0,
            zero: 0,
            subnormal: 0,
            min: 0.0,
            min_index: 0,
            max: 0.0,
            max_index: 0,
            absmax: 0.0,
            absmax_index: 0,
            abs_smallest: 0.0,
            mean: 0.0,
            m2: 0.0,
            l1: 0.0,
            payloads: Vec::new(),
            scale_elements: 0,
            scale_payloads: Vec::new(),
        };
        let shared = weight.scale_elements().map_or(0, |shared| shared as u32);
        let record = WeightV1 { scale_elements: shared, ..record };
        Fold { record, values: blake3::Hasher::new(), moments: Moments::default(), extremes: None, smallest: None }
    }

    /// Adds the next piece; `write` stores what is kept of it and gives the payloads' numbers.
    pub fn add(&mut self, piece: Piece, mut write: impl FnMut(Kept) -> Result<(u64, Option<u64>)>) -> Result<()> {
        self.values.update_rayon(piece.values.as_bytes());
        for statistics in &piece.statistics {
            self.statistics(statistics);
        }
        for kept in piece.kept {
            let (values, scales) = write(kept)?;
            self.record.payloads.push(values);
            self.record.scale_payloads.extend(scales);
        }
        Ok(())
    }

    fn statistics(&mut self, more: &RowStatistics) {
        let record = &mut self.record;
        if let Some(extremes) = &more.extremes {
            let later = Places::of(extremes, record.count);
            self.extremes = Some(self.extremes.map_or(later, |known| known.merge(later)));
        }
        record.count += u64::from(more.count);
        record.nan += u64::from(more.nan);
        record.pos_inf += u64::from(more.pos_inf);
        record.neg_inf += u64::from(more.neg_inf);
        record.zero += u64::from(more.zero);
        record.subnormal += u64::from(more.subnormal);
        record.l1 += more.l1;
        self.moments = self.moments.merge(more.moments);
        self.smallest = match (self.smallest, more.abs_smallest) {
            (Some(known), Some(more)) => Some(known.min(more)),
            (known, more) => known.or(more),
        };
    }

    /// The record of the pieces so far.
    pub fn record(self) -> WeightV1 {
        let mut record = self.record;
        record.values_blake3 = *self.values.finalize().as_bytes();
        (record.mean, record.m2) = (self.moments.mean, self.moments.m2);
        record.abs_smallest = self.smallest.unwrap_or(0.0);
        if let Some(extremes) = self.extremes {
            (record.min, record.min_index) = extremes.min;
            (record.max, record.max_index) = extremes.max;
            (record.absmax, record.absmax_index) = extremes.absmax;
        }
        if record.payloads.is_empty() {
            record.scale_elements = 0;
        }
        record
    }
}
