//! Which operation of a recorded run was wrong: each is judged on its own inputs.
//!
//! Part A, the kernel: what was recorded against what the yardstick makes of the recorded inputs, with the weights of the
//! run's own file and the rounding that it declared. Part B, the file: the run's weights and numbers against the
//! original's. Part C, the precision: what was recorded against what the original's weights give, as far as the run's
//! rounding lets one see. Rules and limits: `docs/audit.md`.

mod allowance;
mod at_hand;
mod case;
mod channels;
mod expected_step;
mod file;
mod finding;
mod hypothesis;
mod judge;
mod kernel;
mod local_error;
mod parameters;
mod precision;
mod product_error;
mod quantised_rows;
mod replayed;
mod weight_error;
mod yardstick;

pub use at_hand::AtHand;
pub use case::save_case;
pub use channels::Channels;
pub use file::audit_files;
pub use finding::{Class, Culprit, Finding, Judgement, Verdict, together, verdict};
pub use judge::{check_auditable, judge};
pub use kernel::audit_kernels;
pub use local_error::{Bound, LocalError, RowError};
pub use precision::audit_precision;
pub use replayed::audit_replay;
