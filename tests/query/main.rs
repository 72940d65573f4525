//! Asking traces: every module is a behaviour of `actrace-query` or of the SQL under it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, a panic is the report")]

mod answers;
mod asking;
mod auditing;
mod channels_and_experts;
mod command_line;
mod comparing;
mod contracts;
mod documented_tables;
mod following_a_live_trace;
mod formats_of_one_model;
mod functions_are_documented;
mod functions_match_numpy;
mod functions_over_tensors;
mod growth_and_odd_runs;
mod judging;
mod named_queries;
mod operations;
mod own_queries;
mod pages_show_what_commands_print;
mod payloads;
#[path = "../record/planted.rs"]
#[allow(dead_code, reason = "the recorder's tests plant the others")]
mod planted;
mod questions;
mod ratio;
mod several_targets;
#[path = "../support/mod.rs"]
mod support;
mod synthetic;
mod tables;
#[path = "../record/tampering.rs"]
#[allow(dead_code, reason = "the recorder's tests plant the others")]
mod tampering;
mod verdicts_by_rule;
mod weights;
mod what_looks_wrong;
