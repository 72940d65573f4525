//! What can be captured, what a user selects of it, and what a run is expected to hold.

mod imported;
mod plan;
mod points;
mod selection;

pub use imported::Imported;
pub use plan::{Plan, Status, weight_ref};
pub use points::{Point, Scope, Side, place_name, vocabulary, vocabulary_hash};
pub use selection::{Layers, Names, Positions, Selection};
