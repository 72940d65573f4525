//! The work that runs off the inference thread: statistics, content hashes, byte planes.

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
    Tensor { number: u64, step: u32, site: SiteId, first_position: usize, rows: Rows, keep: bool, bytes: usize },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
}

/// A job, done.
pub enum Packed {
    /// Statistics of every row; payloads of all rows where they are kept.
    Tensor {
        number: u64,
        step: u32,
        site: SiteId,
        first_position: usize,
        bytes: usize,
        statistics: Vec<RowStatistics>,
        payloads: Result<Vec<PayloadV1>>,
    },
    /// A step is complete.
    Step { number: u64, report: Box<StepReport> },
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

/// One thread's buffers.
pub struct Packer<'a> {
    plan: &'a Plan,
    encoder: Option<Encoder>,
    raw: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// A packer of sites of `plan`.
    pub fn new(plan: &'a Plan) -> Self {
        Packer { plan, encoder: None, raw: Vec::new() }
    }

    /// Does a job.
    pub fn pack(&mut self, job: Job) -> Packed {
        match job {
            Job::Step { number, report } => Packed::Step { number, report },
            Job::Tensor { number, step, site, first_position, rows, keep, bytes } => Packed::Tensor {
                number,
                step,
                site,
                first_position,
                bytes,
                statistics: (0..rows.len()).map(|row| RowStatistics::of(rows.row(row))).collect(),
                payloads: if keep { self.payloads(site, &rows) } else { Ok(Vec::new()) },
            },
        }
    }

    fn payloads(&mut self, site: SiteId, rows: &Rows) -> Result<Vec<PayloadV1>> {
        let mut payloads = Vec::new();
        let mut start = 0;
        while start < rows.len() {
            let end = group_end(rows, start);
            payloads.push(self.payload(rows, start..end).map_err(|error| {
                match self.plan.record().sites.get(site as usize) {
                    Some(site) => error.of(&site.point),
                    None => error,
                }
            })?);
            start = end;
        }
        Ok(payloads)
    }

    fn payload(&mut self, rows: &Rows, range: Range<usize>) -> Result<PayloadV1> {
        self.raw.clear();
        let mut offsets = Vec::new();
        let dtype = rows.dtype();
        for row in range.clone() {
            if rows.width().is_none() {
                offsets.push((self.raw.len() / dtype.size()) as u32);
            }
            self.raw.extend(rows.row(row).iter().flat_map(|value| value.to_le_bytes()));
        }
        if rows.width().is_none() {
            offsets.push((self.raw.len() / dtype.size()) as u32);
        }
        if self.raw.len() > MAX_PAYLOAD_BYTES {
            return Err(Error::unsupported(format!(
                "a row of {} bytes is above the {MAX_PAYLOAD_BYTES} that a frame may hold; leave the point out with --tensors",
                self.raw.len()
            )));
        }
        let width = rows.width().unwrap_or(0) as u32;
        let shape = Shape { captured: dtype, stored: dtype, rows: range.len() as u32, width, offsets: &offsets };
        let blake3 = shape.content_hash(&self.raw);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new()?),
        };
        let mut bytes = Vec::with_capacity(self.raw.len());
        let planes = encoder.encode(dtype, &self.raw, &mut bytes)?;
        Ok(PayloadV1 {
            payload: 0,
            rows: range.len() as u32,
            width,
            offsets,
            captured_dtype: dtype as u8,
            stored_dtype: dtype as u8,
            planes,
            raw_length: self.raw.len() as u64,
            blake3,
            bytes,
        })
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
