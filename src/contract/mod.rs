//! Contracts: promises about traces, each broken by counterexamples that SQL finds.
//!
//! A contract is a file of `contracts/` ([`Contract`]): obligations with what they need and a falsifier, SQL that returns
//! what breaks them. [`check`] tells of every run, or pair of runs, whether an obligation is held, broken, unmeasured
//! (what it needs is not in the trace) or not applicable. What was not measured never counts as held.

mod check;
mod format;
mod needs;
mod outcome;
mod scope;
mod shipped;

pub use check::check;
pub use format::{Contract, Obligation, Pairs, Severity, Sql, Tolerance};
pub use needs::Needs;
pub use outcome::{Checked, Counterexamples, Counts, Judged, Outcome};
pub use scope::Scope;
pub use shipped::{find, shipped};
