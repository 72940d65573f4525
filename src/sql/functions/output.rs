//! What functions give, as Arrow columns.

use arrow::array::{
    ArrayRef, BooleanArray, Float32Builder, Float64Array, Float64Builder, Int64Array, ListBuilder, UInt64Array,
};
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;

/// A value that SQL has a type for.
pub trait Output: Sized + Send + Sync + 'static {
    /// The type.
    fn kind() -> DataType;

    /// A column of such values.
    fn array(values: Vec<Option<Self>>) -> ArrayRef;
}

impl Output for f64 {
    fn kind() -> DataType {
        DataType::Float64
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        Arc::new(Float64Array::from(values))
    }
}

impl Output for i64 {
    fn kind() -> DataType {
        DataType::Int64
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }
}

impl Output for u64 {
    fn kind() -> DataType {
        DataType::UInt64
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        Arc::new(UInt64Array::from(values))
    }
}

impl Output for bool {
    fn kind() -> DataType {
        DataType::Boolean
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        Arc::new(BooleanArray::from(values))
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

impl Output for Vec<f32> {
    fn kind() -> DataType {
        list(DataType::Float32)
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        let mut lists = ListBuilder::new(Float32Builder::new());
        for list in values {
            lists.values().append_slice(list.as_deref().unwrap_or_default());
            lists.append(list.is_some());
        }
        Arc::new(lists.finish())
    }
}

impl Output for Vec<f64> {
    fn kind() -> DataType {
        list(DataType::Float64)
    }

    fn array(values: Vec<Option<Self>>) -> ArrayRef {
        let mut lists = ListBuilder::new(Float64Builder::new());
        for list in values {
            lists.values().append_slice(list.as_deref().unwrap_or_default());
            lists.append(list.is_some());
        }
        Arc::new(lists.finish())
    }
}
