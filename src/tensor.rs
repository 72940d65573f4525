//! Token rows of one tensor in host memory: what travels from a backend to statistics and records.

use std::ops::Range;
use std::sync::Arc;

/// The number format of captured values, before any conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32 = 0,
    /// IEEE 754 binary16.
    F16 = 1,
    /// The upper half of a binary32.
    Bf16 = 2,
}

impl Dtype {
    /// The name in tables: `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The type with number `code` in a trace file.
    pub fn from_code(code: u8) -> Option<Self> {
        [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|dtype| *dtype as u8 == code)
    }
}

/// A number of a tensor: f32 as traces hold it, or f64 as something worked out from it.
pub trait Element: Copy + Send + Sync {
    /// The number, exactly.
    fn wide(self) -> f64;

    /// The nearest f32.
    fn single(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn single(self) -> f32 {
        self
    }
}

impl Element for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn single(self) -> f32 {
        self as f32
    }
}

/// Where each row of a tensor begins and ends, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Every row has this many elements.
    Width(usize),
    /// Row `i` is `offsets[i]..offsets[i + 1]`: attention rows grow with the visible keys.
    Offsets(Arc<[usize]>),
}

impl Extent {
    /// The elements of row `row`.
    pub fn row(&self, row: usize) -> Range<usize> {
        match self {
            Extent::Width(width) => row * width..(row + 1) * width,
            Extent::Offsets(offsets) => offsets[row]..offsets[row + 1],
        }
    }
}

/// Memory that holds the values of a tensor: a vector, or page-locked memory that a card wrote to.
pub trait Values: Send + Sync {
    /// All values.
    fn values(&self) -> &[f32];
}

impl Values for Vec<f32> {
    fn values(&self) -> &[f32] {
        self
    }
}

impl std::fmt::Debug for dyn Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values", self.values().len())
    }
}

/// Consecutive token rows of one tensor of f32 values, shared without a copy.
#[derive(Debug, Clone)]
pub struct Rows {
    values: Arc<dyn Values>,
    extent: Extent,
    rows: Range<usize>,
}

impl Rows {
    /// All `rows` rows of `values`; `None` where extent and length do not agree.
    pub fn new(values: Arc<dyn Values>, extent: Extent, rows: usize) -> Option<Self> {
        let expected = match &extent {
            Extent::Width(width) => rows.checked_mul(*width)?,
            Extent::Offsets(offsets) => {
                let ordered = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
                if offsets.len() != rows + 1 || !ordered || offsets[0] != 0 {
                    return None;
                }
                offsets[rows]
            }
        };
        (expected == values.values().len()).then_some(Rows { values, extent, rows: 0..rows })
    }

    /// The rows `range` of these rows; `None` where there are fewer.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let rows = self.rows.start + range.start..self.rows.start + range.end;
        Some(Rows { rows, ..self.clone() })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number format that was captured.
    pub fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    /// The values of row `row`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values.values()[self.extent.row(self.rows.start + row)]
    }

    /// The width that all rows share, or `None` for ragged rows.
    pub fn width(&self) -> Option<usize> {
        match self.extent {
            Extent::Width(width) => Some(width),
            Extent::Offsets(_) => None,
        }
    }

    /// Bytes of memory that these rows keep alive: those of the whole tensor, however few rows are shown of it.
    pub fn held_bytes(&self) -> usize {
        size_of_val(self.values.values())
    }

    /// The values of all rows, one after the other.
    pub fn values(&self) -> &[f32] {
        if self.rows.is_empty() {
            return &[];
        }
        let start = self.extent.row(self.rows.start).start;
        let end = self.extent.row(self.rows.end - 1).end;
        &self.values.values()[start..end]
    }
}
