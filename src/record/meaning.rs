//! What a well-formed archive must also be: columns of one length, known codes, numbers that agree.

use super::*;
use crate::layout::{FileHeader, FrameHeader, padded};
use crate::tensor::Dtype;

fn require(holds: bool, rule: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::damaged(format!("impossible record: {rule}"))) }
}

/// Whether all lengths are equal.
fn one_length(lengths: &[usize]) -> Result<()> {
    require(lengths.windows(2).all(|pair| pair[0] == pair[1]), "its columns differ in length")
}

impl RunV1 {
    pub(super) fn check(&self) -> Result<()> {
        require(!self.label.is_empty(), "a run without a label")
    }
}

impl PlanV1 {
    pub(super) fn check(&self) -> Result<()> {
        let sites = self.sites.len();
        let weights = self.weights.len();
        for (number, site) in self.sites.iter().enumerate() {
            require(site.site as usize == number, "sites are not numbered in order")?;
            require(site.status <= 4, "an unknown capture status")?;
            require(site.inputs.iter().all(|input| (*input as usize) < sites), "a site reads an unknown site")?;
            require(site.weights.iter().all(|weight| (*weight as usize) < weights), "a site reads an unknown weight")?;
        }
        Ok(())
    }
}

impl WeightV1 {
    /// Elements that are neither NaN nor infinite.
    pub fn finite(&self) -> u64 {
        self.count.saturating_sub(self.nan).saturating_sub(self.pos_inf).saturating_sub(self.neg_inf)
    }

    pub(super) fn check(&self) -> Result<()> {
        let elements = self.weight.shape.iter().try_fold(1, |product: u64, axis| product.checked_mul(*axis));
        require(!self.weight.shape.is_empty() && elements == Some(self.count), "a weight's shape is not its count")?;
        let counts = [self.nan, self.pos_inf, self.neg_inf, self.zero, self.subnormal];
        let counted = counts.iter().try_fold(0, |sum: u64, count| sum.checked_add(*count));
        require(counted.is_some_and(|counted| counted <= self.count), "more odd values than values")?;
        let indices = [self.min_index, self.max_index, self.absmax_index];
        let inside = self.finite() == 0 || indices.iter().all(|index| *index < self.count);
        require(inside, "an extreme beyond the last value")?;
        let named = self.payloads.iter().chain(&self.scale_payloads).all(|payload| *payload != 0);
        require(named, "a payload without a number")?;
        let scales = if self.scale_elements == 0 { 0 } else { self.payloads.len() };
        require(self.scale_payloads.len() == scales, "scales and values differ in payloads")
    }
}

impl ArchivedStatsV1 {
    /// Checks that every column has one entry per row.
    pub(crate) fn check(&self) -> Result<()> {
        one_length(&[
            self.site.len(),
            self.sequence.len(),
            self.position.len(),
            self.count.len(),
            self.nan.len(),
            self.pos_inf.len(),
            self.neg_inf.len(),
            self.zero.len(),
            self.subnormal.len(),
            self.min.len(),
            self.min_index.len(),
            self.max.len(),
            self.max_index.len(),
            self.absmax.len(),
            self.absmax_index.len(),
            self.abs_smallest.len(),
            self.mean.len(),
            self.m2.len(),
            self.l1.len(),
            self.fingerprint.len(),
            self.payload.len(),
            self.payload_row.len(),
        ])
    }
}

impl StatsV1 {
    pub(super) fn check(&self) -> Result<()> {
        let rows = self.site.len();
        let u32s = [
            &self.sequence,
            &self.position,
            &self.count,
            &self.nan,
            &self.pos_inf,
            &self.neg_inf,
            &self.zero,
            &self.subnormal,
            &self.min_index,
            &self.max_index,
            &self.absmax_index,
            &self.payload_row,
        ];
        let f64s = [&self.min, &self.max, &self.absmax, &self.abs_smallest, &self.mean, &self.m2, &self.l1];
        require(u32s.iter().all(|column| column.len() == rows), "its columns differ in length")?;
        require(f64s.iter().all(|column| column.len() == rows), "its columns differ in length")?;
        one_length(&[rows, self.fingerprint.len(), self.payload.len()])?;
        let nonfinite =
            |row: usize| u64::from(self.nan[row]) + u64::from(self.pos_inf[row]) + u64::from(self.neg_inf[row]);
        require((0..rows).all(|row| nonfinite(row) <= u64::from(self.count[row])), "more nonfinite values than values")
    }
}

impl ArchivedPayloadV1 {
    /// The record without its planes' bytes, checked: those are read in place.
    pub(crate) fn without_bytes(&self) -> Result<PayloadV1> {
        let plane = |plane: &ArchivedPlaneV1| PlaneV1 {
            codec: plane.codec,
            offset: plane.offset.to_native(),
            length: plane.length.to_native(),
        };
        let record = PayloadV1 {
            payload: self.payload.to_native(),
            rows: self.rows.to_native(),
            width: self.width.to_native(),
            offsets: self.offsets.iter().map(|offset| offset.to_native()).collect(),
            captured_dtype: self.captured_dtype,
            stored_dtype: self.stored_dtype,
            planes: self.planes.iter().map(plane).collect(),
            raw_length: self.raw_length.to_native(),
            blake3: self.blake3,
            bytes: Vec::new(),
        };
        record.check()?;
        Ok(record)
    }
}

impl PayloadV1 {
    /// Elements of all rows.
    pub fn elements(&self) -> Result<usize> {
        let elements = match self.offsets.last() {
            Some(last) => Some(u64::from(*last)),
            None => u64::from(self.rows).checked_mul(u64::from(self.width)),
        };
        elements
            .and_then(|elements| usize::try_from(elements).ok())
            .ok_or_else(|| Error::damaged("impossible record: a payload of more elements than memory"))
    }

    pub(super) fn check(&self) -> Result<()> {
        let stored = Dtype::from_code(self.stored_dtype);
        require(Dtype::from_code(self.captured_dtype).is_some(), "an unknown captured type")?;
        let Some(stored) = stored else {
            return require(false, "an unknown stored type");
        };
        if !self.offsets.is_empty() {
            require(self.offsets.len() == self.rows as usize + 1, "row boundaries do not match the rows")?;
            require(self.offsets[0] == 0, "the first row does not begin at 0")?;
            require(self.offsets.windows(2).all(|pair| pair[0] <= pair[1]), "row boundaries go back")?;
        }
        let empty = self.width == 0 && self.offsets.is_empty();
        require(self.rows == 0 || !empty, "rows without width and boundaries")?;
        let bytes = (self.elements()? as u64).checked_mul(stored.size() as u64);
        require(bytes == Some(self.raw_length), "shape times width is not the stated length")?;
        require(
            self.raw_length <= crate::layout::MAX_PAYLOAD_BYTES as u64,
            "a payload above the size that a frame may hold",
        )
    }
}

impl StepV1 {
    pub(super) fn check(&self) -> Result<()> {
        require(self.phase <= 1, "an unknown phase")?;
        one_length(&[self.sequence.len(), self.position.len(), self.token.len(), self.prefix.len()])
    }
}

impl CoverageV1 {
    pub(super) fn check(&self) -> Result<()> {
        require(self.status.iter().all(|status| *status <= 4), "an unknown capture status")?;
        one_length(&[
            self.site.len(),
            self.status.len(),
            self.reason.len(),
            self.rows_expected.len(),
            self.rows_captured.len(),
            self.rows_with_tensor.len(),
        ])
    }
}

impl LossV1 {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncV1 {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl EndV1 {
    pub(super) fn check(&self) -> Result<()> {
        require(self.status <= 2 && self.untraced <= 2, "an unknown end status")
    }
}

impl IndexV1 {
    pub(super) fn check(&self) -> Result<()> {
        one_length(&[
            self.seq.len(),
            self.kind.len(),
            self.version.len(),
            self.offset.len(),
            self.stored_length.len(),
            self.raw_length.len(),
            self.run.len(),
            self.step.len(),
            self.rows.len(),
            self.first_site.len(),
            self.last_site.len(),
            self.first_position.len(),
            self.last_position.len(),
        ])?;
        require(self.blake3.len() == self.seq.len() * 32, "its hashes do not match its frames")?;
        one_after_another(&self.seq, &self.offset, &self.stored_length)
    }
}

impl PayloadIndexV1 {
    pub(super) fn check(&self) -> Result<()> {
        one_length(&[
            self.seq.len(),
            self.offset.len(),
            self.stored_length.len(),
            self.raw_length.len(),
            self.run.len(),
            self.step.len(),
        ])?;
        require(self.blake3.len() == self.seq.len() * 32, "its hashes do not match its frames")?;
        let end = self.first_payload.checked_add(self.seq.len() as u64);
        require(self.first_payload > 0 && end.is_some(), "payload numbers out of range")?;
        one_after_another(&self.seq, &self.offset, &self.stored_length)
    }
}

/// Listed frames ascend and do not overlap: so no frame is listed twice, and a directory is never larger than its file.
fn one_after_another(seq: &[u64], offset: &[u64], stored_length: &[u32]) -> Result<()> {
    let mut end = FileHeader::BYTES as u64;
    for (offset, length) in offset.iter().zip(stored_length) {
        require(*offset >= end, "it lists frames out of order")?;
        let next =
            padded(u64::from(*length)).checked_add(FrameHeader::BYTES as u64).and_then(|l| l.checked_add(*offset));
        end = next.ok_or_else(|| Error::damaged("impossible record: it lists a frame beyond any file"))?;
    }
    require(seq.windows(2).all(|pair| pair[0] < pair[1]), "it lists frames out of order")
}

impl SealV1 {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}
