//! Numbers about token rows, each defined once.

mod fingerprint;
mod histogram;
mod named;
mod number;
mod order;
mod percentile;
mod row;
mod shape;
mod softmax;

pub use fingerprint::{prefix_fingerprint, row_fingerprint, tensor_fingerprint};
pub use histogram::{Bin, histogram};
pub use named::{Figure, STATISTICS, TensorStatistics};
pub use number::Number;
pub use order::top;
pub use percentile::{nearest_rank, percentile};
pub use row::{Extremes, Moments, RowStatistics};
pub use shape::Shape;
pub use softmax::{log_sum_exp, softmax};
