//! Numbers about token rows, each defined once.

mod fingerprint;

pub use fingerprint::{row_fingerprint, tensor_fingerprint};
