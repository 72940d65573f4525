//! Decoded rows.

use crate::codec::Decoder;
use crate::error::{Error, Result};
use crate::record::{PayloadV1, Shape};
use crate::tensor::Dtype;

/// Values of captured rows, as f32 (exact for every captured type).
#[derive(Debug)]
pub struct Payload {
    values: Vec<f32>,
    offsets: Vec<u32>,
    width: usize,
    rows: usize,
    dtype: Dtype,
}

impl Payload {
    /// Decodes a record and checks its content hash.
    ///
    /// # Errors
    /// Damaged.
    pub fn decode(record: &PayloadV1) -> Result<Self> {
        let mut decoder = Decoder::default();
        let (captured, stored, raw) = checked(record, &record.bytes, &mut decoder)?;
        Ok(Payload {
            values: to_f32(stored, raw),
            offsets: record.offsets.clone(),
            width: record.width as usize,
            rows: record.rows as usize,
            dtype: captured,
        })
    }

    /// Checks a record, whose planes' bytes are `bytes`, against its content hash.
    pub(super) fn check(record: &PayloadV1, bytes: &[u8], decoder: &mut Decoder) -> Result<()> {
        checked(record, bytes, decoder).map(|_| ())
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that the values take.
    pub fn held_bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }

    /// Number format when captured.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The values of a row; `None` where there is no such row.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        if row >= self.rows {
            return None;
        }
        match self.offsets.get(row..row + 2) {
            Some(bounds) => self.values.get(bounds[0] as usize..bounds[1] as usize),
            None => self.values.get(row * self.width..(row + 1) * self.width),
        }
    }
}

/// Types when captured and as stored, and the raw values, which are those that the content hash was made of.
fn checked<'a>(record: &PayloadV1, bytes: &[u8], decoder: &'a mut Decoder) -> Result<(Dtype, Dtype, &'a [u8])> {
    let unknown = || Error::damaged("an unknown number format");
    let captured = Dtype::from_code(record.captured_dtype).ok_or_else(unknown)?;
    let stored = Dtype::from_code(record.stored_dtype).ok_or_else(unknown)?;
    let raw = decoder.decode(stored, record.elements()?, &record.planes, bytes)?;
    let shape = Shape { captured, stored, rows: record.rows, width: record.width, offsets: &record.offsets };
    if shape.content_hash(raw) != record.blake3 {
        return Err(Error::damaged(format!("the values of payload {} do not match their hash", record.payload)));
    }
    Ok((captured, stored, raw))
}

fn to_f32(dtype: Dtype, raw: &[u8]) -> Vec<f32> {
    let words = || raw.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
    match dtype {
        Dtype::F32 => raw.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        Dtype::F16 => words().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        Dtype::Bf16 => words().map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
    }
}
