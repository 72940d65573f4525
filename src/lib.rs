//! Event-sourced recorder of model activations, and SQL over what it recorded.

pub mod backend;
pub mod capture;
pub mod error;
pub mod file;
pub mod forward;
pub mod graph;
pub mod model;
pub mod open;
pub mod record;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
