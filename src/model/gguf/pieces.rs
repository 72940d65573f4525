//! Tensors in pieces: one is made on all threads while the one before is written.

use super::GgufWriter;
use crate::error::Result;

/// Bytes made at a time, about; while they are written, as many more are made.
const PIECE: usize = 16 << 20;

/// Two buffers: one is filled while the other is written.
#[derive(Debug, Default)]
pub(in crate::model) struct Pieces {
    full: Vec<u8>,
    next: Vec<u8>,
}

impl Pieces {
    /// Makes and writes the `bytes` of a tensor that was begun. `fill` makes those from unit `first` on (its first
    /// argument), a unit being `unit_bytes`; `progress` learns how many bytes of the tensor are written.
    ///
    /// # Errors
    /// Those of `fill`, of `progress` and of writing.
    pub(in crate::model) fn write(
        &mut self,
        writer: &mut GgufWriter,
        bytes: usize,
        unit_bytes: usize,
        fill: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
        mut progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let units = (PIECE / unit_bytes.max(1)).max(1);
        let piece = units.saturating_mul(unit_bytes.max(1));
        let fill = |number: usize, out: &mut Vec<u8>| {
            let start = number.saturating_mul(piece).min(bytes);
            out.resize(piece.min(bytes - start), 0);
            fill(number.saturating_mul(units), out)
        };
        fill(0, &mut self.full)?;
        let mut written = 0;
        for number in 0..bytes.div_ceil(piece) {
            let (full, next) = (&self.full, &mut self.next);
            let (appended, filled) = rayon::join(|| writer.append(full), || fill(number + 1, next));
            appended?;
            written += self.full.len() as u64;
            progress(written)?;
            filled?;
            std::mem::swap(&mut self.full, &mut self.next);
        }
        Ok(())
    }
}
