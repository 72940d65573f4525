//! Where the elements of token rows lie in a stored tensor.

use super::Axis;
use super::dump::DumpTensor;
use crate::error::{Error, Result};
use crate::graph::RowAxes;

/// An axis in memory: how many entries, and how many elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stride {
    /// Entries.
    pub count: usize,
    /// Elements from one to the next.
    pub step: usize,
}

/// A row of `outer.count * inner.count` elements for each token, outer axis first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The element where the first row begins.
    pub start: usize,
    /// Rows.
    pub tokens: Stride,
    /// Heads; one entry where rows have one axis.
    pub outer: Stride,
    /// Elements of a head, keys, or all of a row.
    pub inner: Stride,
}

impl Layout {
    /// How `tensor` lies where its axes are `axes`. An axis of one entry before them is a batch of one sequence.
    ///
    /// # Errors
    /// Malformed where the shape has other axes, or an empty one; unsupported for a batch of several sequences.
    pub fn of(tensor: &DumpTensor, axes: &[Axis]) -> Result<Layout> {
        let shape = &tensor.shape;
        let mut strides = strides(shape, tensor.first_axis_innermost)?;
        if strides.len() == axes.len() + 1 {
            let batch = strides.remove(0).count;
            if batch != 1 {
                return Err(Error::unsupported(format!(
                    "shape {shape:?} is a batch of {batch} sequences: one sequence makes a run"
                )));
            }
        }
        if strides.len() != axes.len() {
            return Err(Error::malformed(format!("shape {shape:?} is not {}", names(axes))));
        }
        if shape.contains(&0) {
            return Err(Error::malformed(format!("shape {shape:?} has an empty axis")));
        }
        let one = Stride { count: 1, step: 0 };
        let axis = |these: &[Axis]| {
            let place = axes.iter().position(|axis| these.contains(axis));
            place.and_then(|place| strides.get(place)).copied().unwrap_or(one)
        };
        Ok(Layout {
            start: 0,
            tokens: axis(&[Axis::Tokens]),
            outer: axis(&[Axis::Heads]),
            inner: axis(&[Axis::Width, Axis::Dim, Axis::Keys]),
        })
    }

    /// Elements of a row.
    pub fn width(&self) -> Option<usize> {
        self.outer.count.checked_mul(self.inner.count)
    }

    /// The part of `width` elements from element `start` of every row on; rows have one axis. `None` where rows end
    /// before.
    pub fn columns(&self, start: usize, width: usize) -> Option<Layout> {
        if start.checked_add(width)? > self.inner.count {
            return None;
        }
        let inner = Stride { count: width, ..self.inner };
        Some(Layout { start: self.start + start * self.inner.step, inner, ..*self })
    }

    /// Of rows that hold `parts` points side by side within each of `heads` heads, those of number `part`. `None`
    /// where they do not fit.
    pub fn interleaved(&self, part: usize, parts: usize, heads: usize) -> Option<Layout> {
        let whole = heads.checked_mul(parts).filter(|whole| *whole > 0)?;
        let dim = self.inner.count / whole;
        if part >= parts || dim * whole != self.inner.count {
            return None;
        }
        let outer = Stride { count: heads, step: parts * dim * self.inner.step };
        let inner = Stride { count: dim, ..self.inner };
        Some(Layout { start: self.start + part * dim * self.inner.step, outer, inner, ..*self })
    }

    /// The axes of a row whose stored axes are `axes`.
    ///
    /// # Errors
    /// Unsupported for rows of 2^32 elements or more.
    pub fn row_axes(&self, axes: &[Axis]) -> Result<RowAxes> {
        let number = |count: usize| u32::try_from(count).ok();
        let counted = self.width().and_then(number).zip(number(self.outer.count).zip(number(self.inner.count)));
        let (width, (heads, inner)) = counted.ok_or_else(|| Error::unsupported("its rows are too wide"))?;
        Ok(match axes {
            axes if axes.contains(&Axis::Keys) => RowAxes::Keys { heads, window: None },
            axes if axes.contains(&Axis::Heads) => RowAxes::Heads { heads, dim: inner },
            _ => RowAxes::Flat { width },
        })
    }
}

/// Every axis in memory.
fn strides(shape: &[usize], first_axis_innermost: bool) -> Result<Vec<Stride>> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = 1usize;
    let inwards: Box<dyn Iterator<Item = &usize>> =
        if first_axis_innermost { Box::new(shape.iter()) } else { Box::new(shape.iter().rev()) };
    for count in inwards {
        strides.push(Stride { count: *count, step });
        step = step
            .checked_mul(*count)
            .ok_or_else(|| Error::malformed(format!("a tensor of shape {shape:?} is too large")))?;
    }
    if !first_axis_innermost {
        strides.reverse();
    }
    Ok(strides)
}

/// Axes in words: `[tokens, width]`.
fn names(axes: &[Axis]) -> String {
    let name = |axis: &Axis| match axis {
        Axis::Tokens => "tokens",
        Axis::Width => "width",
        Axis::Heads => "heads",
        Axis::Dim => "dim",
        Axis::Keys => "keys",
    };
    format!("[{}]", axes.iter().map(name).collect::<Vec<_>>().join(", "))
}
