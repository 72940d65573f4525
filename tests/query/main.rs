//! Asking traces: every module is a behaviour of `actrace-query` or of the SQL under it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, a panic is the report")]

mod asking;
mod auditing;
mod command_line;
mod comparing;
mod contracts;
mod documented_tables;
mod following_a_live_trace;
mod formats_of_one_model;
mod functions_are_documented;
mod functions_match_numpy;
mod functions_over_tensors;
mod operations;
mod pages_show_what_commands_print;
mod payloads;
#[path = "../record/planted.rs"]
#[allow(dead_code, reason = "the recorder's tests plant the others")]
mod planted;
mod questions;
mod ratio;
#[path = "../support/mod.rs"]
mod support;
mod synthetic;
mod tables;
mod weights;
