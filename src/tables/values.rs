//! Values of rows, decoded payload by payload.

use super::column;
use crate::error::{Error, Result};
use crate::open::{Payload, TensorReference, Trace};
use crate::record::ArchivedStatsV1;
use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use std::sync::Arc;

/// The payload rows that statistics name.
pub struct Values<'a> {
    trace: &'a Trace,
    record: &'a ArchivedStatsV1,
}

impl<'a> Values<'a> {
    pub(super) fn new(trace: &'a Trace, record: &'a ArchivedStatsV1) -> Self {
        Values { trace, record }
    }

    /// Calls `take` with the values of each of `rows` in order: `None` where no tensor was kept. Neighbouring rows
    /// share payloads, so the last one is kept at hand.
    pub fn each(&self, rows: &[u32], mut take: impl FnMut(u32, Option<&[f32]>) -> Result<()>) -> Result<()> {
        let mut last: Option<(u64, Arc<Payload>)> = None;
        for &row in rows {
            let (payload, place) = self.place(row)?;
            if payload == 0 {
                take(row, None)?;
                continue;
            }
            if last.as_ref().is_none_or(|(number, _)| *number != payload) {
                last = Some((payload, self.trace.payload(payload)?));
            }
            let values = last.as_ref().and_then(|(_, decoded)| decoded.row(place as usize));
            let values = values.ok_or_else(|| {
                Error::damaged(format!("payload {payload} has no row {place}")).in_file(self.trace.path())
            })?;
            take(row, Some(values))?;
        }
        Ok(())
    }

    /// Whether the tensor of `row` was kept.
    pub fn kept(&self, row: u32) -> Result<bool> {
        Ok(self.place(row)?.0 != 0)
    }

    /// The values of `rows` as lists; NULL where no tensor was kept.
    pub fn lists(&self, rows: &[u32]) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(Float32Builder::new());
        self.each(rows, |_, values| {
            lists.values().append_slice(values.unwrap_or_default());
            lists.append(values.is_some());
            Ok(())
        })?;
        Ok(Arc::new(lists.finish()))
    }

    /// References to the values of `rows`; NULL where no tensor was kept.
    pub fn references(&self, rows: &[u32]) -> Result<ArrayRef> {
        let reference = |row: &u32| Ok(self.reference(*row)?.map(|reference| reference.to_string()));
        Ok(column::text(rows.iter().map(reference).collect::<Result<Vec<_>>>()?))
    }

    /// Where the values of `row` are; `None` where no tensor was kept.
    pub fn reference(&self, row: u32) -> Result<Option<TensorReference>> {
        let (payload, place) = self.place(row)?;
        Ok((payload != 0).then(|| TensorReference { file: self.trace.header().uuid, payload, row: place }))
    }

    fn place(&self, row: u32) -> Result<(u64, u32)> {
        let index = usize::try_from(row).unwrap_or(usize::MAX);
        match (self.record.payload.get(index), self.record.payload_row.get(index)) {
            (Some(payload), Some(place)) => Ok((payload.to_native(), place.to_native())),
            _ => Err(Error::internal(format!("statistics have no row {row}"))),
        }
    }
}
