//! Where a matrix or vector of the model lies in its file, and how to read its rows.

use super::{Bytes, Scales, TensorType, WeightKey, quant};
use crate::error::{Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;

/// How a canonical weight `[rows, columns]` lies in its stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row `r` is stored row `first + r` (a fused tensor holds several weights one below the other).
    Rows {
        /// First stored row.
        first: usize,
    },
    /// Stored transposed (Conv1D of gpt2): element `(r, c)` is stored row `c`, column `first + r`.
    Columns {
        /// First stored column.
        first: usize,
        /// Columns of the stored tensor.
        stored_columns: usize,
    },
    /// Rows of each head are stored in adjacent-pair RoPE order (GGUF files of the llama family):
    /// canonical row `h * head_dim + j * head_dim / 2 + i` is stored row `h * head_dim + 2 * i + j`.
    /// In a vector (a bias) the same holds for its elements.
    HeadPairs {
        /// Elements of a head.
        head_dim: usize,
    },
    /// Query, key and value of each head lie together (Hugging Face's files of GPT-NeoX): canonical row
    /// `h * head_dim + i` is stored row `(3 * h + part) * head_dim + i`. In a vector the same holds for its elements.
    HeadThirds {
        /// Elements of a head.
        head_dim: usize,
        /// 0 query, 1 key, 2 value.
        part: usize,
    },
}

impl Layout {
    /// The name in records: `rows`, `columns`, `head_pairs`, `head_thirds`.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Rows { .. } => "rows",
            Layout::Columns { .. } => "columns",
            Layout::HeadPairs { .. } => "head_pairs",
            Layout::HeadThirds { .. } => "head_thirds",
        }
    }

    /// Where canonical row (of a vector: element) `index` is stored; `None` where it is a column, or nowhere.
    fn stored(self, index: usize) -> Option<usize> {
        match self {
            Layout::Rows { first } => first.checked_add(index),
            Layout::Columns { .. } => None,
            Layout::HeadPairs { head_dim } => {
                let within = index.checked_rem(head_dim)?;
                let half = head_dim / 2;
                let (j, i) = (within.checked_div(half)?, within.checked_rem(half)?);
                Some(index - within + 2 * i + j)
            }
            Layout::HeadThirds { head_dim, part } => {
                let (head, within) = (index.checked_div(head_dim)?, index.checked_rem(head_dim)?);
                head.checked_mul(3)?.checked_add(part)?.checked_mul(head_dim)?.checked_add(within)
            }
        }
    }

    /// Which canonical row (of a vector: element) is stored at `index` of the weight's own; `None` where rows of other
    /// weights lie between, or none are stored.
    pub(super) fn canonical(self, index: usize) -> Option<usize> {
        match self {
            Layout::Rows { first } => index.checked_sub(first),
            Layout::HeadPairs { head_dim } => {
                let within = index.checked_rem(head_dim)?;
                Some(index - within + (within % 2) * (head_dim / 2) + within / 2)
            }
            Layout::Columns { .. } | Layout::HeadThirds { .. } => None,
        }
    }

    /// Whether the elements of a vector are in another order than the canonical.
    fn shuffles(self) -> bool {
        matches!(self, Layout::HeadPairs { .. } | Layout::HeadThirds { .. })
    }
}

/// A weight in canonical shape over the bytes of its mapped file. Vectors are one row.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Name in the file.
    pub stored_name: String,
    /// What it is.
    pub key: WeightKey,
    /// Type of the stored elements or blocks.
    pub tensor_type: TensorType,
    /// Canonical rows (outputs of a matrix; 1 for a vector).
    pub rows: usize,
    /// Canonical columns (inputs of a matrix; the length of a vector).
    pub columns: usize,
    /// Where the rows are.
    pub layout: Layout,
    /// Which file of the model.
    pub file: usize,
    /// Where the stored tensor begins in that file.
    pub offset: u64,
    /// The stored tensor's bytes.
    pub data: Bytes,
    /// The factors of the stored tensor's elements, where they lie in a tensor of their own.
    pub scales: Option<Scales>,
}

impl Weight {
    /// The packed bytes of canonical row `row`, without [`Weight::scales`].
    ///
    /// `None` where they are not consecutive ([`Layout::Columns`], a vector in [`Layout::HeadPairs`] or
    /// [`Layout::HeadThirds`]) and past the last row. [`Weight::dequantize_row`] reads every layout.
    pub fn row_bytes(&self, row: usize) -> Option<&[u8]> {
        if row >= self.rows || self.is_shuffled_vector() {
            return None;
        }
        let stored = self.layout.stored(row)?;
        let length = self.tensor_type.row_bytes(self.columns).ok()?;
        let start = stored.checked_mul(length)?;
        self.data.get(start..start.checked_add(length)?)
    }

    /// Canonical row `row` as f32; `out` has [`Weight::columns`] elements.
    ///
    /// # Errors
    /// Internal where row, layout or length do not fit the weight.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if out.len() != self.columns || row >= self.rows {
            return Err(self.misread(&format!("row {row} with {} elements", out.len())));
        }
        match self.layout {
            Layout::Columns { first, stored_columns } => self.dequantize_column(first + row, stored_columns, out),
            _ if self.is_shuffled_vector() => self.dequantize_shuffled(out),
            _ => {
                let packed = self.row_bytes(row).ok_or_else(|| self.misread(&format!("row {row}")))?;
                quant::dequantize(self.tensor_type, packed, out)?;
                self.scale(row, out)
            }
        }
    }

    /// Consecutive elements of a row that share a scale; `None` for plain elements. Where a vector's elements are stored
    /// in another order, each has the scale of its own block.
    pub fn scale_elements(&self) -> Option<usize> {
        let shared = quant::scale_elements(self.tensor_type)?;
        Some(if self.is_shuffled_vector() { 1 } else { shared })
    }

    /// The scales of canonical row `row`, one for each [`Weight::scale_elements`] of its columns.
    ///
    /// # Errors
    /// Internal where the elements are plain, or row or length do not fit the weight.
    pub fn scales_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let misread = || self.misread(&format!("{} scales of row {row}", out.len()));
        let (Some(shared), Some(stored)) = (self.scale_elements(), quant::scale_elements(self.tensor_type)) else {
            return Err(misread());
        };
        if row >= self.rows || out.len().checked_mul(shared) != Some(self.columns) {
            return Err(misread());
        }
        if !self.is_shuffled_vector() {
            let packed = self.row_bytes(row).ok_or_else(misread)?;
            return quant::scales(self.tensor_type, packed, out);
        }
        let blocks = self.data.len() / self.tensor_type.block_bytes();
        let mut scales = vec![0.0; blocks * (self.tensor_type.block_elements() / stored)];
        quant::scales(self.tensor_type, &self.data, &mut scales)?;
        for (i, scale) in out.iter_mut().enumerate() {
            let from = self.layout.stored(i).and_then(|from| scales.get(from / stored));
            *scale = *from.ok_or_else(|| self.misread(&format!("element {i}")))?;
        }
        Ok(())
    }

    /// Whether this is a vector whose elements are stored in another order than the canonical.
    fn is_shuffled_vector(&self) -> bool {
        self.layout.shuffles() && !self.key.role.is_matrix()
    }

    /// Multiplies the elements of canonical row `row` by their factors, where they have any.
    fn scale(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let Some(scales) = &self.scales else { return Ok(()) };
        let scaled = self.layout.stored(row).and_then(|stored| scales.scale(stored, out));
        scaled.ok_or_else(|| self.misread(&format!("the factors of row {row}")))
    }

    /// The packed bytes of all rows in canonical order, without [`Weight::scales`]: those of the file where it stores them
    /// so, else a copy.
    ///
    /// # Errors
    /// Unsupported for blocks and 8-bit floats that are stored transposed; internal where layout or length do not fit.
    pub fn canonical_bytes(&self) -> Result<Bytes> {
        let row_bytes = self.tensor_type.row_bytes(self.columns)?;
        let size = row_bytes.checked_mul(self.rows).ok_or_else(|| self.misread("more than memory can hold"))?;
        match self.layout {
            Layout::Rows { first } => {
                let start = first.checked_mul(row_bytes);
                let range = start.and_then(|start| Some(start..start.checked_add(size)?));
                range.and_then(|range| self.data.slice(range)).ok_or_else(|| self.misread("all rows"))
            }
            Layout::HeadPairs { .. } | Layout::HeadThirds { .. } => {
                let mut bytes = Vec::with_capacity(size);
                for row in 0..self.rows {
                    bytes.extend_from_slice(self.row_bytes(row).ok_or_else(|| self.misread(&format!("row {row}")))?);
                }
                Ok(bytes.into())
            }
            Layout::Columns { .. } => self.turned(row_bytes, size).map(Bytes::from),
        }
    }

    /// The bytes of a transposed weight in canonical order. Plain elements survive the way through f32 bit for bit.
    fn turned(&self, row_bytes: usize, size: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; size];
        bytes.par_chunks_mut(row_bytes).enumerate().try_for_each_init(
            || vec![0f32; self.columns],
            |values, (row, bytes)| {
                self.dequantize_row(row, values)?;
                match self.tensor_type {
                    TensorType::F32 => store(bytes, values, f32::to_le_bytes),
                    TensorType::F16 => store(bytes, values, |x| f16::from_f32(x).to_le_bytes()),
                    TensorType::Bf16 => store(bytes, values, |x| bf16::from_f32(x).to_le_bytes()),
                    other => {
                        let message = format!("weights of type {} cannot be stored transposed", other.name());
                        return Err(Error::unsupported(message).of(&self.stored_name));
                    }
                }
                Ok(())
            },
        )?;
        Ok(bytes)
    }

    /// A vector whose elements are stored in another order, some of them another weight's.
    fn dequantize_shuffled(&self, out: &mut [f32]) -> Result<()> {
        // The data's own length bounds it: no block has fewer bytes than a third of its elements.
        let block = self.tensor_type.block_elements();
        let mut stored = vec![0.0; self.data.len() / self.tensor_type.block_bytes() * block];
        quant::dequantize(self.tensor_type, &self.data, &mut stored)?;
        for (i, value) in out.iter_mut().enumerate() {
            let from = self.layout.stored(i).and_then(|from| stored.get(from));
            *value = *from.ok_or_else(|| self.misread(&format!("element {i}")))?;
        }
        Ok(())
    }

    fn dequantize_column(&self, column: usize, stored_columns: usize, out: &mut [f32]) -> Result<()> {
        let size = self.tensor_type.block_bytes();
        if self.tensor_type.block_elements() != 1 {
            return Err(self.misread("a column of blocks"));
        }
        for (i, value) in out.iter_mut().enumerate() {
            let start = (i * stored_columns + column) * size;
            let packed = self.data.get(start..start + size).ok_or_else(|| self.misread(&format!("column {column}")))?;
            quant::dequantize(self.tensor_type, packed, std::slice::from_mut(value))?;
        }
        Ok(())
    }

    fn misread(&self, what: &str) -> Error {
        Error::internal(format!(
            "{what} was asked of a weight of {} x {} in layout {}",
            self.rows,
            self.columns,
            self.layout.name()
        ))
        .of(&self.stored_name)
    }
}

fn store<const N: usize>(bytes: &mut [u8], values: &[f32], convert: impl Fn(f32) -> [u8; N]) {
    for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *bytes = convert(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    fn weight(role: Role, rows: usize, columns: usize, layout: Layout, values: &[f32]) -> Weight {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Weight {
            stored_name: "t".into(),
            key: WeightKey::outside(role),
            tensor_type: TensorType::F32,
            rows,
            columns,
            layout,
            file: 0,
            offset: 0,
            data: Bytes::from(data),
            scales: None,
        }
    }

    fn row(weight: &Weight, row: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; weight.columns];
        weight.dequantize_row(row, &mut out).unwrap();
        out
    }

    #[test]
    fn a_fused_part_starts_at_its_first_row() {
        let weight = weight(Role::K, 1, 2, Layout::Rows { first: 2 }, &[0., 1., 2., 3., 4., 5.]);
        assert_eq!(row(&weight, 0), [4., 5.]);
        assert_eq!(weight.row_bytes(0).unwrap()[..4], 4f32.to_le_bytes());
        assert!(weight.row_bytes(1).is_none());
    }

    #[test]
    fn a_transposed_weight_is_read_by_column() {
        // Stored [2 inputs, 3 outputs]; the weight is the last two outputs.
        let layout = Layout::Columns { first: 1, stored_columns: 3 };
        let weight = weight(Role::V, 2, 2, layout, &[0., 1., 2., 10., 11., 12.]);
        assert_eq!(row(&weight, 0), [1., 11.]);
        assert_eq!(row(&weight, 1), [2., 12.]);
        assert!(weight.row_bytes(0).is_none());
        let turned: Vec<u8> = [1f32, 11., 2., 12.].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(*weight.canonical_bytes().unwrap(), turned[..]);
    }

    #[test]
    fn head_pairs_are_put_back_into_halves() {
        // Two heads of 4: stored order of each is element 0, 2, 1, 3 of the canonical head.
        let stored = [0., 2., 1., 3., 4., 6., 5., 7.];
        let canonical: Vec<f32> = (0..8u8).map(f32::from).collect();
        let layout = Layout::HeadPairs { head_dim: 4 };
        let matrix = weight(Role::Q, 8, 1, layout, &stored);
        assert_eq!((0..8).map(|r| row(&matrix, r)[0]).collect::<Vec<_>>(), canonical);
        let bytes: Vec<u8> = canonical.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(*matrix.canonical_bytes().unwrap(), bytes[..]);
        let bias = weight(Role::QBias, 1, 8, layout, &stored);
        assert_eq!(row(&bias, 0), canonical);
        assert!(bias.row_bytes(0).is_none());
    }

    #[test]
    fn what_is_stored_where_is_known_both_ways() {
        for layout in [Layout::Rows { first: 5 }, Layout::HeadPairs { head_dim: 6 }] {
            for row in 0..12 {
                assert_eq!(layout.stored(row).and_then(|stored| layout.canonical(stored)), Some(row), "{layout:?}");
            }
        }
        assert_eq!(Layout::Rows { first: 5 }.canonical(4), None);
    }

    #[test]
    fn head_thirds_are_taken_apart() {
        // Two heads of 2, each with its query, key and value rows.
        let stored: Vec<f32> = (0..12u8).map(f32::from).collect();
        let layout = Layout::HeadThirds { head_dim: 2, part: 1 };
        let matrix = weight(Role::K, 4, 1, layout, &stored);
        assert_eq!((0..4).map(|r| row(&matrix, r)[0]).collect::<Vec<_>>(), [2., 3., 8., 9.]);
        let bytes: Vec<u8> = [2f32, 3., 8., 9.].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(*matrix.canonical_bytes().unwrap(), bytes[..]);
        let bias = weight(Role::KBias, 1, 4, layout, &stored);
        assert_eq!(row(&bias, 0), [2., 3., 8., 9.]);
        assert!(bias.row_bytes(0).is_none());
    }

    #[test]
    fn scales_follow_the_canonical_order() {
        // Two Q8_0 blocks with scales 1 and 2: a vector of 64 with one head, stored in pairs.
        let mut bytes = vec![1u8; 68];
        bytes[..2].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
        bytes[34..36].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        let plain = weight(Role::QBias, 1, 64, Layout::Rows { first: 0 }, &[]);
        let plain = Weight { tensor_type: TensorType::Q8_0, data: Bytes::from(bytes), ..plain };
        let mut scales = [0.0; 2];
        plain.scales_row(0, &mut scales).unwrap();
        assert_eq!((plain.scale_elements(), scales), (Some(32), [1.0, 2.0]));
        assert!(plain.scales_row(0, &mut [0.0; 3]).is_err() && plain.scales_row(1, &mut scales).is_err());
        let paired = Weight { layout: Layout::HeadPairs { head_dim: 64 }, ..plain };
        let (mut scales, mut values) = ([0.0; 64], [0.0; 64]);
        paired.scales_row(0, &mut scales).unwrap();
        paired.dequantize_row(0, &mut values).unwrap();
        // Every quant is 1, so each value is its block's scale.
        assert_eq!((paired.scale_elements(), scales), (Some(1), values));
        assert_eq!(scales[15..17], [1.0, 2.0]);
    }

    #[test]
    fn a_weight_refuses_rows_that_do_not_fit() {
        let weight = weight(Role::Q, 2, 2, Layout::Rows { first: 0 }, &[0.0; 4]);
        assert!(weight.dequantize_row(2, &mut [0.0; 2]).is_err());
        assert!(weight.dequantize_row(0, &mut [0.0; 3]).is_err());
    }
}
