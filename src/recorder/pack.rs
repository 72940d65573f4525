//! The work that runs off the inference thread: statistics, content hashes, byte planes.

use super::joined::Joined;
use super::known::Known;
use super::spare::Spare;
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
use zerocopy::IntoBytes;

/// Bytes of a row that the content root covers.
const HASHED_BYTES: usize = 8 * 4 + 4 * 8;

/// What the forward pass hands over, numbered in its order.
pub enum Job {
    /// Rows that travel together, holding so many bytes of the budget.
    Rows { number: u64, step: u32, captures: Vec<Capture>, bytes: usize },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
}

/// Consecutive rows of one site.
pub struct Capture {
    /// Number in the plan.
    pub site: SiteId,
    /// Position of the first row.
    pub first_position: usize,
    /// The rows.
    pub rows: Captured,
    /// Whether their values go to the file.
    pub keep: bool,
}

/// A job, done.
pub enum Packed {
    /// Rows that travelled together.
    Rows { number: u64, step: u32, bytes: usize, content: Result<Shown> },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
}

/// Statistics of every row; payloads of those that are kept.
#[derive(Default)]
pub struct Shown {
    /// In forward order.
    pub tensors: Vec<Tensor>,
    /// What the run's content root covers of their statistics, one row after the other.
    pub hashed: Vec<u8>,
    /// Empty where no tensor is kept.
    pub payloads: Vec<Content>,
    /// Raw bytes of the kept tensors.
    pub kept_bytes: u64,
}

/// Statistics of consecutive rows of one site.
pub struct Tensor {
    /// Number in the plan.
    pub site: SiteId,
    /// Position of the first row.
    pub first_position: usize,
    /// One for each row.
    pub statistics: Vec<RowStatistics>,
    /// Where each row is among the rows of all payloads; empty where the tensor is not kept.
    pub places: Vec<u32>,
}

/// The values of consecutive rows, on their way to the file.
pub struct Content {
    /// The record; without planes while `rows` are there.
    pub record: PayloadV1,
    /// crc32c of the record's bytes.
    pub crc: u32,
    /// The rows, where the file probably holds the same content and packing it was put off.
    pub rows: Option<Rows>,
}

impl Packed {
    /// Place in the order of the forward pass.
    pub fn number(&self) -> u64 {
        match self {
            Packed::Rows { number, .. } | Packed::Step { number, .. } => *number,
        }
    }

    /// Bytes of budget that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Packed::Rows { bytes, .. } => *bytes,
            Packed::Step { .. } => 0,
        }
    }
}

/// One thread that packs.
pub struct Packer<'a> {
    plan: &'a Plan,
    contents: Contents<'a>,
}

/// Makes contents of rows.
struct Contents<'a> {
    known: &'a Known,
    spare: &'a Spare,
    encoder: Option<Encoder>,
}

impl<'a> Packer<'a> {
    /// A packer of sites of `plan` into `spare` buffers, which puts off what is `known`.
    pub fn new(plan: &'a Plan, known: &'a Known, spare: &'a Spare) -> Self {
        Packer { plan, contents: Contents { known, spare, encoder: None } }
    }

    /// Does a job.
    pub fn pack(&mut self, job: Job) -> Packed {
        match job {
            Job::Step { number, report } => Packed::Step { number, report },
            Job::Rows { number, step, captures, bytes } => {
                Packed::Rows { number, step, bytes, content: self.content(captures) }
            }
        }
    }

    fn content(&mut self, captures: Vec<Capture>) -> Result<Shown> {
        let mut shown = Shown::default();
        let several = captures.iter().filter(|capture| capture.keep).count() > 1;
        let mut joined = Joined::default();
        for Capture { site, first_position, rows, keep } in captures {
            let Landed { statistics, values } = rows.land()?;
            shown.hashed.extend(hashed(site, first_position as u32, &statistics));
            let mut places = Vec::new();
            if keep {
                let rows = values.ok_or_else(|| Error::internal("values that were asked for did not arrive"))?;
                shown.kept_bytes += size_of_val(rows.values()) as u64;
                if several {
                    places = joined.add(&rows, &statistics);
                } else {
                    places = (0..rows.len() as u32).collect();
                    shown.payloads = self.payloads(&rows).map_err(|error| self.of_site(error, site))?;
                }
            }
            shown.tensors.push(Tensor { site, first_position, statistics, places });
        }
        if several {
            shown.payloads = self.payloads(&joined.rows()?)?;
        }
        Ok(shown)
    }

    fn of_site(&self, error: Error, site: SiteId) -> Error {
        match self.plan.record().sites.get(site as usize) {
            Some(site) => error.of(&site.point),
            None => error,
        }
    }

    fn payloads(&mut self, rows: &Rows) -> Result<Vec<Content>> {
        let mut payloads = Vec::new();
        let mut start = 0;
        while start < rows.len() {
            let end = group_end(rows, start);
            payloads.push(self.contents.of(rows, start..end)?);
            start = end;
        }
        Ok(payloads)
    }
}

impl Contents<'_> {
    fn of(&mut self, rows: &Rows, range: Range<usize>) -> Result<Content> {
        let rows = rows.slice(range).ok_or_else(|| Error::internal("a payload of rows that are not there"))?;
        let content = Content { record: unpacked(&rows)?, crc: 0, rows: Some(rows) };
        if self.known.note(content.record.blake3) {
            return Ok(content);
        }
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new()?),
        };
        content.packed(encoder, self.spare)
    }
}

impl Content {
    /// The content with its planes, packed now if that was put off.
    pub fn made(self, spare: &Spare) -> Result<Self> {
        if self.rows.is_none() { Ok(self) } else { self.packed(&mut Encoder::new()?, spare) }
    }

    fn packed(mut self, encoder: &mut Encoder, spare: &Spare) -> Result<Self> {
        if let Some(rows) = self.rows.take() {
            let raw = rows.values().as_bytes();
            self.record.bytes = spare.take(raw.len());
            self.record.planes = encoder.encode(rows.dtype(), raw, &mut self.record.bytes)?;
            self.crc = crc32c::crc32c(&self.record.bytes);
        }
        Ok(self)
    }
}

/// What the content root covers of the rows of `site` from `first_position` on.
fn hashed(site: SiteId, first_position: u32, rows: &[RowStatistics]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * HASHED_BYTES);
    for (position, row) in (first_position..).zip(rows) {
        for number in [site, position, row.count, row.nan, row.pos_inf, row.neg_inf, row.zero, row.subnormal] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [row.moments.mean, row.moments.m2, row.l1] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&row.fingerprint.to_le_bytes());
    }
    bytes
}

/// The record of rows without its planes.
fn unpacked(rows: &Rows) -> Result<PayloadV1> {
    let dtype = rows.dtype();
    let raw = rows.values().as_bytes();
    if raw.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::unsupported(format!(
            "a row of {} bytes is above the {MAX_PAYLOAD_BYTES} that a frame may hold; leave the point out with --tensors",
            raw.len()
        )));
    }
    let offsets = if rows.width().is_some() { Vec::new() } else { boundaries(rows) };
    let (count, width) = (rows.len() as u32, rows.width().unwrap_or(0) as u32);
    let blake3 = Shape { captured: dtype, stored: dtype, rows: count, width, offsets: &offsets }.content_hash(raw);
    Ok(PayloadV1 {
        payload: 0,
        rows: count,
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

/// Where each of ragged rows begins, in elements, and where the last one ends.
fn boundaries(rows: &Rows) -> Vec<u32> {
    let mut end = 0;
    let ends = (0..rows.len()).map(|row| {
        end += rows.row(row).len() as u32;
        end
    });
    std::iter::once(0).chain(ends).collect()
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

    fn pack(known: &Known, spare: &Spare) -> Content {
        Contents { known, spare, encoder: None }.of(&rows(), 1..3).unwrap()
    }

    #[test]
    fn content_that_was_put_off_packs_to_the_same_record() {
        let known = Known::new(std::iter::empty());
        let spare = Spare::new(1);
        let (first, second) = (pack(&known, &spare), pack(&known, &spare));
        assert!(first.rows.is_none() && !first.record.planes.is_empty());
        assert!(second.rows.is_some() && second.record.planes.is_empty(), "known content is not packed");
        assert_eq!(first.record.blake3, second.record.blake3);
        let second = second.made(&spare).unwrap();
        assert_eq!((second.record, second.crc), (first.record, first.crc), "unless the writer has forgotten it");
    }
}
