//! What can be captured, what a user selects of it, and what a run is expected to hold.

mod plan;
mod points;
mod selection;

pub use plan::{Plan, Status, weight_ref};
pub use points::{Point, Scope, vocabulary, vocabulary_hash};
pub use selection::{Layers, Names, Positions, Selection};
