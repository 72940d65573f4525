//! What functions give, as Arrow columns.

use crate::error::{Error, Result};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, PrimitiveArray, StructArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type};
use std::sync::Arc;

/// A value that SQL has a type for.
pub trait Output: Sized + Send + Sync + 'static {
    /// The type.
    fn kind() -> DataType;

    /// A column of such values.
    ///
    /// # Errors
    ///
    /// `Internal` where the parts of a value do not fit.
    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef>;
}

impl Output for f64 {
    fn kind() -> DataType {
        DataType::Float64
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from(values)))
    }
}

impl Output for i64 {
    fn kind() -> DataType {
        DataType::Int64
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(values)))
    }
}

impl Output for u64 {
    fn kind() -> DataType {
        DataType::UInt64
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        Ok(Arc::new(UInt64Array::from(values)))
    }
}

impl Output for bool {
    fn kind() -> DataType {
        DataType::Boolean
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::from(values)))
    }
}

impl Output for Vec<f32> {
    fn kind() -> DataType {
        list(DataType::Float32)
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        lists(values, |values| Ok(Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(values))))
    }
}

impl Output for Vec<f64> {
    fn kind() -> DataType {
        list(DataType::Float64)
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        lists(values, |values| Ok(Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(values))))
    }
}

/// A value of several named parts.
pub trait Record: Sized + Send + Sync + 'static {
    /// Names and types of the parts.
    fn fields() -> Vec<Field>;

    /// A column for each field; NULL where there is no record.
    ///
    /// # Errors
    ///
    /// `Internal`.
    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>>;
}

/// One record.
pub struct One<R>(pub R);

/// A list of records.
pub struct Many<R>(pub Vec<R>);

impl<R: Record> Output for One<R> {
    fn kind() -> DataType {
        DataType::Struct(Fields::from(R::fields()))
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        let records: Vec<Option<R>> = values.into_iter().map(|value| value.map(|one| one.0)).collect();
        structs(&records)
    }
}

impl<R: Record> Output for Many<R> {
    fn kind() -> DataType {
        list(One::<R>::kind())
    }

    fn array(values: Vec<Option<Self>>) -> Result<ArrayRef> {
        let values = values.into_iter().map(|value| value.map(|many| many.0)).collect();
        lists(values, |records| structs(&records.map(Some).collect::<Vec<_>>()))
    }
}

/// A column of integers from counts.
pub fn counts(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values.map(|value| value.and_then(|value| i64::try_from(value).ok()))))
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn structs<R: Record>(records: &[Option<R>]) -> Result<ArrayRef> {
    let nulls = records.iter().map(Option::is_some).collect::<NullBuffer>();
    let array = StructArray::try_new(Fields::from(R::fields()), R::columns(records)?, Some(nulls));
    Ok(Arc::new(array.map_err(unfit)?))
}

/// Lists whose elements `elements` puts into one column.
fn lists<T>(
    lists: Vec<Option<Vec<T>>>,
    elements: impl FnOnce(&mut dyn Iterator<Item = T>) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let lengths: Vec<usize> = lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)).collect();
    if lengths.iter().sum::<usize>() > i32::MAX as usize {
        return Err(Error::unsupported("the lists of one batch have more than 2^31 elements: ask for fewer rows"));
    }
    let nulls = lists.iter().map(Option::is_some).collect::<NullBuffer>();
    let values = elements(&mut lists.into_iter().flatten().flatten())?;
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let array = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, Some(nulls));
    Ok(Arc::new(array.map_err(unfit)?))
}

fn unfit(cause: arrow::error::ArrowError) -> Error {
    Error::internal("the parts of a value do not fit").because(cause)
}
