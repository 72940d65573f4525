//! What a wrong operation may have done instead, where that tells the class of the fault.

use super::Class;
use crate::graph::Operation;

/// The class of a fault in `operation` that no rounding explains and no closer look was taken at.
pub(super) fn class_of(operation: Operation) -> Class {
    match operation {
        Operation::TokenEmbedding => Class::Tokens,
        Operation::CacheStore => Class::Cache,
        _ => Class::Kernel,
    }
}
