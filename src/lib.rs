//! Event-sourced recorder of model activations, and SQL over what it recorded.
//!
//! A run of a model appends every activation that it saw, with statistics per token row, to one append-only trace file.
//! Everything that is asked afterwards is a fold over that log. Data flows one way:
//!
//! ```text
//! model + capture -> statistics -> records -> file -> open -> compare -> tables -> SQL -> report
//! ```
//!
//! Recording is [`recorder`] watching a [`forward`] pass over a [`backend`]; reading is [`open`]; two runs meet in
//! [`compare`]; SQL is [`sql`] over [`tables`]. `docs/architecture.md` has the whole picture.
//!
//! ```
//! # fn main() -> actrace::Result<()> {
//! use actrace::open::Trace;
//!
//! let trace = Trace::open("tests/fixtures/golden/v1.actrace".as_ref())?;
//! for run in trace.runs() {
//!     println!("{}: {} steps of {}", run.identity.label, run.steps.len(), run.identity.architecture);
//! }
//! assert_eq!(trace.runs().len(), 2);
//! # Ok(())
//! # }
//! ```

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("actrace runs on 64-bit little-endian Linux: x86-64, and aarch64 with plain kernels");

pub mod audit;
pub mod backend;
pub mod capture;
#[cfg(feature = "record")]
pub mod cli;
pub mod codec;
pub mod compare;
#[cfg(feature = "query")]
pub mod contract;
pub mod error;
pub mod file;
pub mod forward;
pub mod graph;
pub mod import;
pub mod layout;
pub mod model;
pub mod open;
pub mod record;
#[cfg(feature = "record")]
pub mod recorder;
pub mod replay;
pub mod report;
#[cfg(feature = "query")]
pub mod sql;
pub mod stats;
#[cfg(feature = "query")]
pub mod tables;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
