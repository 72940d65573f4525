//! Event-sourced recorder of model activations, and SQL over what it recorded.

pub mod backend;
pub mod capture;
#[cfg(feature = "record")]
pub mod cli;
pub mod codec;
pub mod compare;
pub mod error;
pub mod file;
pub mod forward;
pub mod graph;
pub mod layout;
pub mod model;
pub mod open;
pub mod record;
#[cfg(feature = "record")]
pub mod recorder;
pub mod report;
#[cfg(feature = "query")]
pub mod sql;
pub mod stats;
#[cfg(feature = "query")]
pub mod tables;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
