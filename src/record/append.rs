//! How the columns of a record grow.

use super::{PayloadIndexV1, StatsV1};
use crate::stats::{Extremes, RowStatistics};

impl StatsV1 {
    /// Adds the row of `site` at `position` of sequence 0; `payload` is the number of the payload that holds its
    /// values and the row in it, (0, 0) where they are not kept.
    pub fn push(&mut self, site: u32, position: u32, row: &RowStatistics, payload: (u64, u32)) {
        let extreme = |pick: fn(&Extremes) -> (f64, u32)| row.extremes.as_ref().map_or((0.0, 0), pick);
        self.site.push(site);
        self.sequence.push(0);
        self.position.push(position);
        self.count.push(row.count);
        self.nan.push(row.nan);
        self.pos_inf.push(row.pos_inf);
        self.neg_inf.push(row.neg_inf);
        self.zero.push(row.zero);
        self.subnormal.push(row.subnormal);
        for (values, indices, (value, index)) in [
            (&mut self.min, &mut self.min_index, extreme(|e| e.min)),
            (&mut self.max, &mut self.max_index, extreme(|e| e.max)),
            (&mut self.absmax, &mut self.absmax_index, extreme(|e| e.absmax)),
        ] {
            values.push(value);
            indices.push(index);
        }
        self.abs_smallest.push(row.abs_smallest.unwrap_or(0.0));
        self.mean.push(row.moments.mean);
        self.m2.push(row.moments.m2);
        self.l1.push(row.l1);
        self.fingerprint.push(row.fingerprint);
        self.payload.push(payload.0);
        self.payload_row.push(payload.1);
    }
}

impl PayloadIndexV1 {
    /// The number behind the last payload that is listed.
    pub fn next_payload(&self) -> u64 {
        self.first_payload.saturating_add(self.seq.len() as u64)
    }
}
