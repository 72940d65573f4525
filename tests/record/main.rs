//! Tests of the recorder, from a model file to a trace file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static COUNTED: support::memory::Counting = support::memory::Counting;

mod cards_agree_with_the_processor;
mod command;
mod faults;
mod imports;
mod running;
mod traces;

mod a_slow_disk_blocks_the_run;
mod activations_match_hugging_face;
mod appended_after_a_crash;
mod apr_files_run_as_their_originals;
mod audited_files;
mod audited_precision;
mod bad_input;
mod converted_models_keep_their_values;
mod culprits_are_named;
mod damaged_bytes_are_detected;
mod damaged_models_never_panic;
mod durable_levels;
mod equal_content_is_stored_once;
mod every_model_on_a_card;
mod evidence_of_the_card;
mod experts_are_recorded_by_slot;
mod failed_writes_are_reported;
mod families_match_hugging_face;
mod fixtures_are_reproducible;
mod golden_trace_stays_readable;
mod hostile_files_are_refused;
mod imported_runs_are_audited;
mod imported_runs_are_what_was_dumped;
mod imports_that_are_refused;
mod kernels_compile;
mod killed_while_recording;
mod modules_use_only_what_stands_above;
mod no_card_no_run;
mod one_writer_at_a_time;
mod operations_on_a_card;
mod planted;
mod planted_faults_show;
mod power_loss_keeps_what_was_synced;
mod products_match_llama_cpp;
mod prompts_are_split_by_the_model_s_vocabulary;
mod quantised_models_are_their_values;
mod readme_says_what_is_tested;
mod recover_keeps_what_is_whole;
mod replays_are_runs;
mod results_do_not_depend_on_scheduling;
mod rows_of_a_layer_share_payloads;
mod runs_that_are_refused;
mod runs_that_look_wrong;
mod schema_matches_the_code;
mod signals_seal;
mod states_on_open;
mod statistics_match_numpy;
mod synthetic_models_are_ordinary;
mod tampering;
mod tracing_changes_nothing;
mod weights_are_evidence;
mod write_errors;
mod wrong_kernels_are_named;
