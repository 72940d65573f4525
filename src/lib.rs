//! Event-sourced recorder of model activations, and SQL over what it recorded.

pub mod backend;
pub mod capture;
#[cfg(feature = "record")]
pub mod cli;
pub mod codec;
pub mod error;
pub mod file;
pub mod forward;
pub mod graph;
pub mod model;
pub mod open;
pub mod record;
#[cfg(feature = "record")]
pub mod recorder;
pub mod stats;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
