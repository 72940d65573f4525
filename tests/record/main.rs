//! Tests of the recorder, from a model file to a trace file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static COUNTED: support::memory::Counting = support::memory::Counting;

mod running;
mod traces;

mod activations_match_hugging_face;
mod damaged_bytes_are_detected;
mod failed_writes_are_reported;
mod fixtures_are_reproducible;
mod golden_trace_stays_readable;
mod hostile_files_are_refused;
mod planted_faults_show;
mod power_loss_keeps_what_was_synced;
mod products_match_llama_cpp;
mod results_do_not_depend_on_scheduling;
mod runs_that_are_refused;
mod schema_matches_the_code;
