//! Tests of the recorder, from a model file to a trace file.

#[path = "../support/mod.rs"]
mod support;

mod fixtures_are_reproducible;
