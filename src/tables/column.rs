//! Arrow columns from record columns, without a copy where the bytes already agree.

use crate::error::{Error, Result};
use crate::open::StatsFrame;
use arrow::array::DictionaryArray;
use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, ListBuilder, PrimitiveBuilder, StringArray, StringBuilder,
    UInt64Array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use bytes::Bytes;
use std::sync::Arc;

/// A column that can be NULL.
pub fn field(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

/// Text that repeats: an index into few distinct values.
pub fn repeated(name: &str) -> Field {
    field(name, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))
}

/// A list of `kind`.
pub fn list(name: &str, kind: DataType) -> Field {
    field(name, DataType::List(Arc::new(Field::new_list_field(kind, true))))
}

/// The same text on every row.
pub fn constant_text(text: &str, rows: usize) -> Result<ArrayRef> {
    indexed_text(Arc::new(StringArray::from(vec![text])), vec![0; rows])
}

/// Text by index into `values`.
pub fn indexed_text(values: Arc<StringArray>, keys: Vec<i32>) -> Result<ArrayRef> {
    let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), values)
        .map_err(|cause| Error::internal("a dictionary column has a key without a value").because(cause))?;
    Ok(Arc::new(array))
}

/// Text that may be missing, an entry a row.
pub fn text<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

/// Text with few distinct values, an entry a row.
pub fn few_texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(DictionaryArray::<Int32Type>::from_iter(values))
}

/// Unsigned numbers as SQL's signed ones, so that differences work.
pub fn integers(values: impl IntoIterator<Item = u32>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.into_iter().map(i64::from)))
}

/// 64-bit counts; one beyond `i64` is NULL (no file is that large).
pub fn long_integers(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values.into_iter().map(|value| i64::try_from(value).ok())))
}

/// Layers, with -1 (outside the layers) as NULL.
pub fn layers(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter(values.into_iter().map(|layer| (layer >= 0).then_some(layer))))
}

/// Lists of integers.
pub fn integer_lists<I: IntoIterator<Item = u32>>(lists: impl IntoIterator<Item = I>) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new());
    for list in lists {
        for value in list {
            builder.values().append_value(i64::from(value));
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Lists of texts.
pub fn text_lists<'a, I: IntoIterator<Item = &'a str>>(lists: impl IntoIterator<Item = I>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for list in lists {
        for value in list {
            builder.values().append_value(value);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Floats with NULL where `valid` says so.
pub fn floats(values: Vec<f64>, valid: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(Arc::new(Float64Array::try_new(ScalarBuffer::from(values), valid).map_err(internal)?))
}

/// The f64 column `values` of `frame`, in place.
pub fn floats_in_place<T>(frame: &StatsFrame, values: &[T], valid: Option<NullBuffer>) -> Result<ArrayRef> {
    let buffer = in_place(frame, values)?;
    Ok(Arc::new(Float64Array::try_new(ScalarBuffer::new(buffer, 0, values.len()), valid).map_err(internal)?))
}

/// The u64 column `values` of `frame`, in place.
pub fn words_in_place<T>(frame: &StatsFrame, values: &[T]) -> Result<ArrayRef> {
    let buffer = in_place(frame, values)?;
    Ok(Arc::new(UInt64Array::try_new(ScalarBuffer::new(buffer, 0, values.len()), None).map_err(internal)?))
}

/// Keeps a record's bytes alive for as long as an Arrow column points into them.
struct Body(Arc<rkyv::util::AlignedVec<64>>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// The bytes of `values`, which must lie inside `frame`. Archived numbers are little-endian, as Arrow's are on the
/// little-endian machines that this crate supports.
fn in_place<T>(frame: &StatsFrame, values: &[T]) -> Result<Buffer> {
    let body = frame.body();
    let start = (values.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    let length = size_of_val(values);
    let inside = start.checked_add(length).is_some_and(|end| end <= body.len());
    // An archive may put an empty column anywhere; Arrow wants words aligned to their size.
    if values.is_empty() {
        return Ok(Buffer::from(&[] as &[u8]));
    }
    if !inside || size_of::<T>() != 8 || !(values.as_ptr() as usize).is_multiple_of(8) {
        return Err(Error::internal("a statistics column does not lie in its record"));
    }
    Ok(Buffer::from(Bytes::from_owner(Body(Arc::clone(body)))).slice_with_length(start, length))
}

fn internal(cause: arrow::error::ArrowError) -> Error {
    Error::internal("a column does not fit its rows").because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn outside_the_layers_is_null() {
        let array = layers([-1, 0, 3]);
        assert!(array.is_null(0) && array.is_valid(1));
        assert_eq!(array.len(), 3);
    }

    #[test]
    fn counts_beyond_the_signed_range_are_null_and_not_negative() {
        let array = long_integers([1, u64::MAX]);
        assert!(array.is_valid(0) && array.is_null(1));
    }
}
