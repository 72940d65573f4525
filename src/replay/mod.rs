//! Every operation of a recorded run again, each from its own recorded inputs: nothing is inherited from the operation
//! before, so what differs was made here.

mod derivation;
mod emulation;
mod evaluation;
mod recorded;
mod run;

pub use derivation::{Derivation, derive};
pub use emulation::{Alternative, Emulation, alternatives, overrides};
pub use evaluation::Evaluation;
pub use recorded::Recorded;
pub use run::Replay;
