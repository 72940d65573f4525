//! What people and programs read.

mod comparison;

pub use comparison::{comparison_json, comparison_text};
