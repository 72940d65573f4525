//! Tensors as a file holds them, before they get a role.

use super::{Bytes, Scales, TensorType};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor {
    pub tensor_type: TensorType,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Which file of the model.
    pub file: usize,
    /// Where it begins in that file.
    pub offset: u64,
    pub data: Bytes,
    /// The factors of its elements, where they lie in a tensor of their own.
    pub scales: Option<Scales>,
}

/// All tensors of a model by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Tensors(BTreeMap<String, StoredTensor>);

impl Tensors {
    /// Adds a tensor.
    ///
    /// # Errors
    /// Malformed where the name is taken.
    pub(super) fn insert(&mut self, name: String, tensor: StoredTensor) -> Result<()> {
        match self.0.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(Error::malformed("two tensors have this name").of(&name)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut StoredTensor> {
        self.0.get_mut(name)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<StoredTensor> {
        self.0.remove(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Refuses tensors of one file that share bytes.
    ///
    /// # Errors
    /// Malformed, with the name of the second.
    pub(super) fn check_overlap(&self) -> Result<()> {
        let mut stretches: Vec<(usize, u64, usize, &str)> = self
            .0
            .iter()
            .filter(|(_, tensor)| !tensor.data.is_empty())
            .map(|(name, tensor)| (tensor.file, tensor.offset, tensor.data.len(), name.as_str()))
            .collect();
        stretches.sort_unstable();
        for pair in stretches.windows(2) {
            let [(file, offset, length, first), (next_file, next_offset, _, second)] = pair else { continue };
            if file == next_file && next_offset - offset < *length as u64 {
                return Err(Error::malformed(format!("it overlaps tensor {first}")).at(*next_offset).of(second));
            }
        }
        Ok(())
    }
}

/// Bytes of a tensor of `shape` (outermost axis first).
///
/// # Errors
/// Malformed where rows are no whole blocks, or the size overflows.
pub(super) fn size_of(tensor_type: TensorType, shape: &[usize]) -> Result<usize> {
    let (columns, outer) = match shape.split_last() {
        Some((columns, outer)) => (*columns, outer),
        None => (1, shape),
    };
    outer
        .iter()
        .try_fold(tensor_type.row_bytes(columns)?, |size, axis| size.checked_mul(*axis))
        .ok_or_else(|| Error::malformed(format!("a tensor of shape {shape:?} is too large")))
}
