//! The work that runs off the inference thread: statistics, content hashes, byte planes.

use super::known::Known;
use crate::backend::{Captured, Landed};
use crate::capture::Plan;
use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::file::{MAX_PAYLOAD_BYTES, PAYLOAD_TARGET_BYTES};
use crate::forward::StepReport;
use crate::graph::SiteId;
use crate::record::{PayloadV1, Shape};
use crate::stats::RowStatistics;
use crate::tensor::Rows;
use std::ops::Range;

/// What the forward pass hands over, numbered in its order.
pub enum Job {
    /// Rows of one site.
    Tensor { number: u64, step: u32, site: SiteId, first_position: usize, rows: Captured, keep: bool, bytes: usize },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
}

/// A job, done.
pub enum Packed {
    /// Rows of one site.
    Tensor { number: u64, step: u32, site: SiteId, first_position: usize, bytes: usize, content: Result<Shown> },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
}

/// Statistics of every row; payloads of all rows where they are kept.
pub struct Shown {
    /// One for each row.
    pub statistics: Vec<RowStatistics>,
    /// Empty where no tensor is kept.
    pub payloads: Vec<Content>,
}

/// The values of consecutive rows, on their way to the file.
pub struct Content {
    /// The record; without planes while `rows` are there.
    pub record: PayloadV1,
    /// The rows, where the file probably holds the same content and packing it was put off.
    pub rows: Option<(Rows, Range<usize>)>,
}

impl Packed {
    /// Place in the order of the forward pass.
    pub fn number(&self) -> u64 {
        match self {
            Packed::Tensor { number, .. } | Packed::Step { number, .. } => *number,
        }
    }

    /// Bytes of budget that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Packed::Tensor { bytes, .. } => *bytes,
            Packed::Step { .. } => 0,
        }
    }
}

/// One thread that packs.
pub struct Packer<'a> {
    plan: &'a Plan,
    known: &'a Known,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    encoder: Option<Encoder>,
    raw: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// A packer of sites of `plan`, which puts off what is `known`.
    pub fn new(plan: &'a Plan, known: &'a Known) -> Self {
        Packer { plan, known, buffers: Buffers::default() }
    }

    /// Does a job.
    pub fn pack(&mut self, job: Job) -> Packed {
        match job {
            Job::Step { number, report } => Packed::Step { number, report },
            Job::Tensor { number, step, site, first_position, rows, keep, bytes } => {
                Packed::Tensor { number, step, site, first_position, bytes, content: self.content(site, rows, keep) }
            }
        }
    }

    fn content(&mut self, site: SiteId, rows: Captured, keep: bool) -> Result<Shown> {
        let Landed { statistics, values } = rows.land()?;
        let payloads = match (keep, values) {
            (false, _) => Vec::new(),
            (true, Some(rows)) => self.payloads(site, &rows)?,
            (true, None) => return Err(Error::internal("values that were asked for did not arrive")),
        };
        Ok(Shown { statistics, payloads })
    }

    fn payloads(&mut self, site: SiteId, rows: &Rows) -> Result<Vec<Content>> {
        let mut payloads = Vec::new();
        let mut start = 0;
        while start < rows.len() {
            let end = group_end(rows, start);
            payloads.push(self.buffers.content(self.known, rows, start..end).map_err(|error| {
                match self.plan.record().sites.get(site as usize) {
                    Some(site) => error.of(&site.point),
                    None => error,
                }
            })?);
            start = end;
        }
        Ok(payloads)
    }
}

impl Buffers {
    fn content(&mut self, known: &Known, rows: &Rows, range: Range<usize>) -> Result<Content> {
        let mut record = unpacked(rows, range.clone(), &mut self.raw)?;
        if known.note(record.blake3) {
            return Ok(Content { record, rows: Some((rows.clone(), range)) });
        }
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new()?),
        };
        encode(encoder, rows, &self.raw, &mut record)?;
        Ok(Content { record, rows: None })
    }
}

impl Content {
    /// The record with its planes, packed now if that was put off.
    pub fn packed(mut self) -> Result<PayloadV1> {
        if let Some((rows, range)) = self.rows {
            let mut raw = Vec::new();
            self.record = unpacked(&rows, range, &mut raw)?;
            encode(&mut Encoder::new()?, &rows, &raw, &mut self.record)?;
        }
        Ok(self.record)
    }
}

/// The record of rows without its planes; `raw` takes their little-endian values.
fn unpacked(rows: &Rows, range: Range<usize>, raw: &mut Vec<u8>) -> Result<PayloadV1> {
    let dtype = rows.dtype();
    raw.clear();
    let mut offsets = Vec::new();
    for row in range.clone() {
        offsets.push((raw.len() / dtype.size()) as u32);
        append_values(rows.row(row), raw);
    }
    offsets.push((raw.len() / dtype.size()) as u32);
    if raw.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::unsupported(format!(
            "a row of {} bytes is above the {MAX_PAYLOAD_BYTES} that a frame may hold; leave the point out with --tensors",
            raw.len()
        )));
    }
    if rows.width().is_some() {
        offsets.clear();
    }
    let width = rows.width().unwrap_or(0) as u32;
    let blake3 =
        Shape { captured: dtype, stored: dtype, rows: range.len() as u32, width, offsets: &offsets }.content_hash(raw);
    Ok(PayloadV1 {
        payload: 0,
        rows: range.len() as u32,
        width,
        offsets,
        captured_dtype: dtype as u8,
        stored_dtype: dtype as u8,
        planes: Vec::new(),
        raw_length: raw.len() as u64,
        blake3,
        bytes: Vec::new(),
    })
}

fn encode(encoder: &mut Encoder, rows: &Rows, raw: &[u8], record: &mut PayloadV1) -> Result<()> {
    record.bytes.reserve_exact(raw.len());
    record.planes = encoder.encode(rows.dtype(), raw, &mut record.bytes)?;
    Ok(())
}

/// Appends the little-endian bytes of `values`; a fixed size on both sides makes it a plain copy.
fn append_values(values: &[f32], raw: &mut Vec<u8>) {
    let start = raw.len();
    raw.resize(start + size_of_val(values), 0);
    for (bytes, value) in raw[start..].as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
}

/// As many rows from `start` on as fit a payload, at least one.
fn group_end(rows: &Rows, start: usize) -> usize {
    let mut bytes = 0;
    for row in start..rows.len() {
        bytes += std::mem::size_of_val(rows.row(row));
        if bytes > PAYLOAD_TARGET_BYTES && row > start {
            return row;
        }
    }
    rows.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Extent;
    use std::sync::Arc;

    fn rows() -> Rows {
        let values: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
        Rows::new(Arc::new(values), Extent::Offsets(Arc::from([0, 10, 30, 60])), 3).unwrap()
    }

    fn pack(known: &Known) -> Content {
        let mut buffers = Buffers::default();
        buffers.content(known, &rows(), 1..3).unwrap()
    }

    #[test]
    fn content_that_was_put_off_packs_to_the_same_record() {
        let known = Known::new(std::iter::empty());
        let (first, second) = (pack(&known), pack(&known));
        assert!(first.rows.is_none() && !first.record.planes.is_empty());
        assert!(second.rows.is_some() && second.record.planes.is_empty(), "known content is not packed");
        assert_eq!(first.record.blake3, second.record.blake3);
        assert_eq!(second.packed().unwrap(), first.packed().unwrap(), "unless the writer has forgotten it");
    }
}
