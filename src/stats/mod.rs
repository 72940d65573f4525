//! Numbers about token rows, each defined once.

mod fingerprint;
mod row;

pub use fingerprint::{prefix_fingerprint, row_fingerprint, tensor_fingerprint};
pub use row::{Extremes, Moments, RowStatistics};
