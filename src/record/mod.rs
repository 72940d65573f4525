//! What a trace says: one frozen struct per record kind and version.

mod v1;
pub use v1::*;
