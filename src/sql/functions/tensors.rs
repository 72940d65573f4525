//! Tensors as arguments: lists of numbers, or references to what traces hold.

use crate::error::{Error, Result};
use crate::open::{StoredRow, TraceSet};
use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use std::borrow::Cow;
use std::sync::Arc;

/// The type that an argument of type `given` is turned into; `None` where it is no tensor.
///
/// Lists of f32 stay what they are, other numbers become f64; texts are references. NULL alone is a tensor that was not
/// kept.
pub fn coerced(given: &DataType) -> Option<DataType> {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    match given {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::Float32 | DataType::Float16 => Some(list(DataType::Float32)),
            number if number.is_numeric() || number.is_null() => Some(list(DataType::Float64)),
            _ => None,
        },
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Dictionary(_, value) if value.is_string() => Some(DataType::Utf8),
        DataType::Null => Some(DataType::Utf8),
        _ => None,
    }
}

/// A column of tensors, of a type that [`coerced`] gives.
pub enum TensorColumn<'a> {
    /// Lists of f32.
    Single(&'a ListArray, &'a Float32Array),
    /// Lists of f64.
    Double(&'a ListArray, &'a Float64Array),
    /// References, and where they lead.
    References(&'a StringArray, &'a TraceSet),
}

/// The values of one tensor, held as long as they are looked at.
#[derive(Debug)]
pub enum Tensor<'a> {
    /// Of a list of f32.
    Single(&'a [f32]),
    /// Of a list of f64.
    Double(&'a [f64]),
    /// Of a trace.
    Stored(StoredRow),
}

/// The values of one tensor.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// As traces hold them.
    Single(&'a [f32]),
    /// As something worked them out.
    Double(&'a [f64]),
}

impl<'a> TensorColumn<'a> {
    /// The tensors of `column`; references lead into `set`.
    ///
    /// # Errors
    ///
    /// `Internal` for a column of another type.
    pub fn new(column: &'a ArrayRef, set: &'a TraceSet) -> Result<Self> {
        let other = || Error::internal(format!("no tensors: {}", column.data_type()));
        if let Some(references) = column.as_string_opt::<i32>() {
            return Ok(TensorColumn::References(references, set));
        }
        let lists = column.as_list_opt::<i32>().ok_or_else(other)?;
        if let Some(values) = lists.values().as_primitive_opt::<Float32Type>() {
            return Ok(TensorColumn::Single(lists, values));
        }
        let values = lists.values().as_primitive_opt::<Float64Type>().ok_or_else(other)?;
        Ok(TensorColumn::Double(lists, values))
    }

    /// The tensor at `row`; `None` where it is NULL.
    ///
    /// # Errors
    ///
    /// `Usage` for a list with a NULL in it; whatever reading a reference says.
    pub fn tensor(&self, row: usize) -> Result<Option<Tensor<'a>>> {
        Ok(match self {
            TensorColumn::Single(lists, values) => {
                elements(lists, *values, row)?.map(|range| Tensor::Single(&values.values()[range]))
            }
            TensorColumn::Double(lists, values) => {
                elements(lists, *values, row)?.map(|range| Tensor::Double(&values.values()[range]))
            }
            TensorColumn::References(references, _) if references.is_null(row) => None,
            TensorColumn::References(references, set) => {
                Some(Tensor::Stored(set.row(&references.value(row).parse()?)?))
            }
        })
    }
}

/// Where the elements of the list at `row` stand among `values`.
fn elements(lists: &ListArray, values: &dyn Array, row: usize) -> Result<Option<std::ops::Range<usize>>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let offsets = lists.value_offsets();
    // Arrow checks that the offsets of a list lie within its values.
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    let null = match values.null_count() {
        0 => None,
        _ => range.clone().position(|index| values.is_null(index)),
    };
    match null {
        Some(index) => Err(Error::usage(format!("element {index} of a list is NULL, which is no value of a tensor"))),
        None => Ok(Some(range)),
    }
}

impl Tensor<'_> {
    /// Its values.
    pub fn values(&self) -> Values<'_> {
        match self {
            Tensor::Single(values) => Values::Single(values),
            Tensor::Double(values) => Values::Double(values),
            Tensor::Stored(row) => Values::Single(row.values()),
        }
    }
}

impl<'a> Values<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::Single(values) => values.len(),
            Values::Double(values) => values.len(),
        }
    }

    /// All of them as f64.
    pub fn wide(self) -> Cow<'a, [f64]> {
        match self {
            Values::Single(values) => Cow::Owned(values.iter().copied().map(f64::from).collect()),
            Values::Double(values) => Cow::Borrowed(values),
        }
    }

    /// Value `index`; `None` behind the last.
    pub fn get(&self, index: usize) -> Option<f64> {
        match self {
            Values::Single(values) => values.get(index).copied().map(f64::from),
            Values::Double(values) => values.get(index).copied(),
        }
    }
}
