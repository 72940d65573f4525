//! Token rows read out of a mapped tensor, a few at a time.

use super::Masked;
use super::layout::{Layout, Stride};
use crate::error::{Error, Result};
use crate::graph::RowAxes;
use crate::model::Bytes;
use crate::tensor::{Dtype, Extent, Rows};
use half::{bf16, f16};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of values that are read at once, unless a single row has more.
const PIECE_BYTES: usize = 4 << 20;

/// The rows of one capture point in a stored tensor.
#[derive(Debug, Clone)]
pub struct View {
    /// The tensor's values.
    pub data: Bytes,
    /// Their type.
    pub dtype: Dtype,
    /// Where rows lie.
    pub layout: Layout,
    /// What a row is.
    pub axes: RowAxes,
    /// What stands where a query sees no key.
    pub masked: Masked,
    /// Position of the first row.
    pub first_position: usize,
}

impl View {
    /// The positions that have a row.
    pub fn positions(&self) -> Range<usize> {
        self.first_position..self.first_position + self.layout.tokens.count
    }

    /// Reads the rows in pieces of bounded memory and hands each to `take`, with the position of its first row.
    ///
    /// # Errors
    /// What `take` says.
    pub fn pieces(&self, mut take: impl FnMut(usize, Rows) -> Result<()>) -> Result<()> {
        let row_bytes = self.layout.width().unwrap_or(usize::MAX).saturating_mul(size_of::<f32>()).max(1);
        let rows = (PIECE_BYTES / row_bytes).max(1);
        let all = self.positions();
        let mut start = all.start;
        while start < all.end {
            let end = all.end.min(start.saturating_add(rows));
            take(start, self.rows(start..end)?)?;
            start = end;
        }
        Ok(())
    }

    /// Refuses values where a query sees no key: they would be dropped, and mean something.
    ///
    /// # Errors
    /// Malformed, with the first such value.
    pub fn check_masked(&self) -> Result<()> {
        let RowAxes::Keys { window, .. } = self.axes else { return Ok(()) };
        let Layout { outer, .. } = self.layout;
        self.positions().try_for_each(|position| {
            let seen = visible(position, window);
            (0..outer.count).try_for_each(|head| self.check_hidden(&seen, position, head))
        })
    }

    /// The values of the last row.
    ///
    /// # Errors
    /// Those of [`View::pieces`].
    pub fn last_row(&self) -> Result<Vec<f32>> {
        let end = self.positions().end;
        Ok(self.rows(end.saturating_sub(1)..end)?.values().to_vec())
    }

    fn rows(&self, positions: Range<usize>) -> Result<Rows> {
        let (mut values, mut offsets) = (Vec::new(), vec![0]);
        let count = positions.len();
        for position in positions {
            self.row(position, &mut values)?;
            offsets.push(values.len());
        }
        let extent = match self.axes.width() {
            Some(width) => Extent::Width(width as usize),
            None => Extent::Offsets(offsets.into()),
        };
        Rows::new(Arc::new(values), extent, count).ok_or_else(|| Error::internal("rows are not as wide as their axes"))
    }

    /// The element where a head of a row begins.
    fn start(&self, position: usize, head: usize) -> usize {
        let Layout { start, tokens, outer, .. } = self.layout;
        start + position.saturating_sub(self.first_position) * tokens.step + head * outer.step
    }

    fn row(&self, position: usize, values: &mut Vec<f32>) -> Result<()> {
        let Layout { outer, inner, .. } = self.layout;
        for head in 0..outer.count {
            let start = self.start(position, head);
            match self.axes {
                RowAxes::Keys { window, .. } => {
                    let seen = visible(position, window);
                    let keys = Stride { count: seen.len(), ..inner };
                    self.read(start + seen.start * inner.step, keys, values)?;
                }
                RowAxes::Flat { .. } | RowAxes::Heads { .. } => self.read(start, inner, values)?,
            }
        }
        Ok(())
    }

    fn check_hidden(&self, seen: &Range<usize>, position: usize, head: usize) -> Result<()> {
        let start = self.start(position, head);
        let (expected, name) = match self.masked {
            Masked::Anything => return Ok(()),
            Masked::Zero => (0.0, "0"),
            Masked::MinusInfinity => (f32::NEG_INFINITY, "-inf"),
        };
        let inner = self.layout.inner;
        for keys in [0..seen.start, seen.end..inner.count] {
            let mut hidden = Vec::new();
            self.read(start + keys.start * inner.step, Stride { count: keys.len(), ..inner }, &mut hidden)?;
            if let Some((key, value)) = keys.zip(hidden).find(|(_, value)| *value != expected) {
                return Err(Error::malformed(format!(
                    "head {head} of position {position} has {value} at key {key}, which the position does not see: the \
                     mapping says {name} there"
                )));
            }
        }
        Ok(())
    }

    fn read(&self, start: usize, stride: Stride, values: &mut Vec<f32>) -> Result<()> {
        match self.dtype {
            Dtype::F32 => self.read_as(start, stride, values, f32::from_le_bytes),
            Dtype::F16 => self.read_as(start, stride, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::Bf16 => self.read_as(start, stride, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        }
    }

    fn read_as<const N: usize>(
        &self,
        start: usize,
        stride: Stride,
        values: &mut Vec<f32>,
        value: impl Fn([u8; N]) -> f32,
    ) -> Result<()> {
        let outside = || Error::internal("a row ends behind its tensor");
        if stride.count == 0 {
            return Ok(());
        }
        let bytes = self.data.get(start * N..).ok_or_else(outside)?;
        let (elements, _) = bytes.as_chunks::<N>();
        let last = (stride.count - 1) * stride.step;
        let elements = elements.get(..=last).ok_or_else(outside)?;
        values.extend(elements.iter().step_by(stride.step.max(1)).map(|bytes| value(*bytes)));
        Ok(())
    }
}

/// The keys that the token at `position` sees.
fn visible(position: usize, window: Option<u32>) -> Range<usize> {
    let end = position + 1;
    end.saturating_sub(window.map_or(usize::MAX, |window| window as usize))..end
}
