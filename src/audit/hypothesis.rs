//! The class of a fault, from the operation that it is in.

use super::Class;

/// The class of a fault in an operation that no rounding explains.
pub(super) fn class_of(operation: &str) -> Class {
    match operation {
        "token_embedding" => Class::Tokens,
        "cache_store" => Class::Cache,
        _ => Class::Kernel,
    }
}
