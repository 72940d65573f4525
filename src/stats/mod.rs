//! Numbers about token rows, each defined once.

mod fingerprint;
mod order;
mod row;
mod softmax;

pub use fingerprint::{prefix_fingerprint, row_fingerprint, tensor_fingerprint};
pub use order::top;
pub use row::{Extremes, Moments, RowStatistics};
pub use softmax::{log_sum_exp, softmax};
