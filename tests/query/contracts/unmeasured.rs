//! What was not captured is not held, whatever the falsifier returns.

use super::recording::{Wanted, checked, edited, outcomes, right};
use crate::support::families;
use actrace::backend::Semantics::DequantizeF32;
use actrace::contract::{Outcome, shipped};

fn recorded(wanted: &Wanted<'_>) -> Vec<u8> {
    right("run", &families::folder("llama3"), DequantizeF32, wanted)
}

/// Each obligation with what it lacks.
fn lacking(file: Vec<u8>) -> String {
    let outcomes = outcomes(&checked(&[file], &shipped().unwrap()));
    let line = |((obligation, runs), outcome): (&(String, String), &Outcome)| match outcome {
        Outcome::Held => Some(format!("{obligation}: held\n")),
        Outcome::Unmeasured(reasons) if !runs.is_empty() => Some(format!("{obligation}: {}\n", reasons.join("; "))),
        Outcome::Unmeasured(_) | Outcome::NotApplicable(_) => None,
        Outcome::Broken(_) | Outcome::Error(_) => Some(format!("{obligation}: {}\n", outcome.name())),
    };
    outcomes.iter().filter_map(line).collect()
}

#[test]
fn points_that_were_not_selected_leave_what_needs_them_unmeasured() {
    insta::assert_snapshot!(lacking(recorded(&Wanted {
        points: "embed,ffn_up,ffn_act,logits",
        tensors: "all",
        weights: false
    })));
}

#[test]
fn values_that_were_not_kept_leave_what_needs_them_unmeasured() {
    insta::assert_snapshot!(lacking(recorded(&Wanted { points: "all", tensors: "resid_mid", weights: false })));
}

/// A run that was killed before its first step: it has no row, and nothing says how many it should have.
#[test]
fn a_run_without_a_step_or_an_end_holds_nothing_that_counts_rows() {
    let file = edited(&recorded(&Wanted { points: "all", tensors: "all", weights: false }), |records| {
        records.steps.clear();
        records.ended = false;
    });
    insta::assert_snapshot!(lacking(file));
}

/// What an import without a model is: places with values, and nothing of how they were made.
#[test]
fn a_run_that_says_nothing_of_its_model_leaves_algebra_unmeasured() {
    let file = edited(&recorded(&Wanted { points: "all", tensors: "all", weights: false }), |records| {
        records.run.kind = "import".to_owned();
        records.run.architecture.clear();
        records.run.hyper_parameters.clear();
        for site in &mut records.plan.sites {
            site.operation.clear();
            site.inputs.clear();
            site.weights.clear();
            site.heads = 0;
        }
    });
    insta::assert_snapshot!(lacking(file));
}
