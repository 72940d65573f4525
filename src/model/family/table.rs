//! One line of a family's table: which tensor holds a weight, and how.

use crate::model::Role;

/// How a weight lies in its tensor.
#[derive(Clone, Copy)]
pub(super) enum Lie {
    /// As it is.
    Plain,
    /// Transposed.
    Transposed,
    /// One of these, one below the other.
    Fused(&'static [Role]),
    /// One of these, side by side and transposed.
    FusedTransposed(&'static [Role]),
    /// Rows of each head in adjacent pairs.
    Pairs,
    /// One of three in each head.
    HeadThird(usize),
    /// All experts of the layer one below the other, on an axis of their own.
    Merged,
    /// A vector that may be stored as a matrix of one row.
    Row,
}

/// Whether a family's model has the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Presence {
    Needed,
    /// Where the file has it.
    Optional,
}

/// Role, name (`{}` is the expert's number), how it lies there, whether it has to be there.
pub(super) type Entry = (Role, &'static str, Lie, Presence);

/// What fused tensors hold.
pub(super) const QKV: &[Role] = &[Role::Q, Role::K, Role::V];
pub(super) const QKV_BIAS: &[Role] = &[Role::QBias, Role::KBias, Role::VBias];
pub(super) const GATE_UP: &[Role] = &[Role::FfnGate, Role::FfnUp];
